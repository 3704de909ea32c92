//! One line of the report: a figure, what it is judged against, the outcome.
//!
//! Every benchmark of this crate hands back rows, whatever it measures; what they have in common is
//! all the report knows. Figures are medians of repetitions with the least and the greatest, and a
//! goal is judged on the median.

use std::fmt;

/// Median, least and greatest of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// None of no figures.
    pub(crate) fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        };
        Some(Self { median, min, max })
    }

    /// Of a figure that does not vary: a count, or one from a table.
    pub(crate) fn exact(figure: f64) -> Self {
        Self { median: figure, min: figure, max: figure }
    }

    /// Median (least–greatest) as text; a dash for none.
    pub(crate) fn show(spread: Option<Self>, digits: usize) -> String {
        let Some(Self { median, min, max }) = spread else { return "–".to_owned() };
        if min == max {
            return format!("{median:.digits$}");
        }
        format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
    }
}

/// Names of rows that could not be measured, and why.
pub(crate) type Lost = Vec<(String, String)>;

/// One line of the report.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// What is measured: "SNAT, 32 K conns, one way".
    pub(crate) name: String,
    /// Of `ours` and of the peer's figure: "Mpps", "ns", "bytes", "M conns/s", "instructions".
    pub(crate) unit: &'static str,
    pub(crate) ours: Spread,
    pub(crate) peer: Option<Peer>,
    pub(crate) goal: Option<Goal>,
    /// What a reader must know: dirty windows, a peer's figure that was not measured here.
    pub(crate) remark: String,
}

/// What a row is compared with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) figure: Spread,
    /// Ours divided by the peer's, taken inside each pair where both were measured. Of a cost that
    /// is to be so many times as little, the peer's divided by ours; the remark says so.
    pub(crate) ratio: Spread,
    /// False where the figure is from elsewhere.
    pub(crate) measured: bool,
}

impl Peer {
    /// A peer whose figure was measured elsewhere; the ratio follows from it.
    pub(crate) fn from_elsewhere(name: &str, figure: f64, ours: Spread) -> Self {
        let ratio =
            Spread { median: ours.median / figure, min: ours.min / figure, max: ours.max / figure };
        Self { name: name.to_owned(), figure: Spread::exact(figure), ratio, measured: false }
    }
}

/// What the median of a row is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// The ratio.
    RatioAtLeast(f64),
    /// The ratio.
    RatioAtMost(f64),
    /// The figure itself.
    AtLeast(f64),
    /// The figure itself.
    AtMost(f64),
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RatioAtLeast(goal) => write!(f, "≥ {goal}×"),
            Self::RatioAtMost(goal) => write!(f, "≤ {goal}×"),
            Self::AtLeast(goal) => write!(f, "≥ {goal}"),
            Self::AtMost(goal) => write!(f, "≤ {goal}"),
        }
    }
}

impl Row {
    /// Whether the median reaches the goal; None without a goal, or without the peer it is about.
    pub(crate) fn passes(&self) -> Option<bool> {
        let ratio = self.peer.as_ref().map(|peer| peer.ratio.median);
        Some(match self.goal? {
            Goal::RatioAtLeast(goal) => ratio? >= goal,
            Goal::RatioAtMost(goal) => ratio? <= goal,
            Goal::AtLeast(goal) => self.ours.median >= goal,
            Goal::AtMost(goal) => self.ours.median <= goal,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_numbers() {
        let odd = Spread::of([3.0, 1.0, 2.0].into_iter());
        assert_eq!(odd, Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        let even = Spread::of([4.0, 1.0, 2.0, 9.0].into_iter());
        assert_eq!(even, Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
        assert_eq!(Spread::of(std::iter::empty()), None);
    }

    #[test]
    fn a_goal_is_judged_on_the_median_of_what_it_is_about() {
        let ours = Spread { median: 12.0, min: 6.0, max: 20.0 };
        let row = |goal, peer| Row {
            name: "table lookup".to_owned(),
            unit: "Mpps",
            ours,
            peer,
            goal,
            remark: String::new(),
        };
        let vpp = Peer::from_elsewhere("VPP", 4.0, ours);
        assert_eq!(vpp.ratio, Spread { median: 3.0, min: 1.5, max: 5.0 });
        let judged = |goal| row(Some(goal), Some(vpp.clone())).passes();
        assert_eq!(judged(Goal::RatioAtLeast(3.0)), Some(true));
        assert_eq!(judged(Goal::RatioAtLeast(3.1)), Some(false));
        assert_eq!(judged(Goal::RatioAtMost(2.9)), Some(false));
        assert_eq!(judged(Goal::AtLeast(12.0)), Some(true));
        assert_eq!(judged(Goal::AtMost(11.9)), Some(false));
        assert_eq!(row(None, Some(vpp.clone())).passes(), None);
        assert_eq!(row(Some(Goal::RatioAtLeast(1.0)), None).passes(), None);
        assert_eq!(row(Some(Goal::AtLeast(1.0)), None).passes(), Some(true));
    }
}
