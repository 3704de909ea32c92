//! One line of the report: a figure, what it is judged against, the outcome.
//!
//! Every benchmark of this crate hands back rows, whatever it measures; what they have in common is
//! all the report knows. Figures are medians of repetitions with the least and the greatest, and a
//! goal is judged on the median. How sure that median is follows from the repetitions too: where
//! the goal lies within, the outcome says so. A figure that makes no sense, or is smaller than its
//! own noise, decides nothing, and neither does one that the rig itself doubts.

use std::fmt;

use crate::goals::Topic;

/// Median, least and greatest of some figures, and the bounds of the median.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Between these lies the median of ever more figures, 19 times of 20; of fewer than six
    /// figures they are the least and the greatest.
    pub(crate) low: f64,
    pub(crate) high: f64,
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
        // How many figures lie below their true median is a binomial count.
        let n = sorted.len() as f64;
        let outside = ((n - 1.96 * n.sqrt()) / 2.0).floor().max(0.0) as usize;
        let (low, high) = (sorted[outside], sorted[sorted.len() - 1 - outside]);
        Some(Self { median, min, max, low, high })
    }

    /// Of a figure that does not vary: a count, or one from a table.
    pub(crate) fn exact(figure: f64) -> Self {
        Self { median: figure, min: figure, max: figure, low: figure, high: figure }
    }

    /// Each figure divided by the same one.
    fn divided_by(self, by: f64) -> Self {
        let Self { median, min, max, low, high } = self;
        Self { median: median / by, min: min / by, max: max / by, low: low / by, high: high / by }
    }

    /// Median (least–greatest) as text; a dash for none.
    pub(crate) fn show(spread: Option<Self>, digits: usize) -> String {
        let Some(Self { median, min, max, .. }) = spread else { return "–".to_owned() };
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
    /// Why nothing is decided whatever the figure says; empty where the rig is fit to judge.
    pub(crate) doubt: String,
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
        let ratio = ours.divided_by(figure);
        Self { name: name.to_owned(), figure: Spread::exact(figure), ratio, measured: false }
    }
}

/// What a row is to reach, and the goal of the product that it is a part of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Goal {
    pub(crate) topic: Topic,
    pub(crate) reach: Reach,
}

/// What the median of a row is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reach {
    /// The ratio.
    RatioAtLeast(f64),
    /// The ratio.
    RatioAtMost(f64),
    /// The figure itself.
    AtLeast(f64),
    /// The figure itself.
    AtMost(f64),
    /// The figure is what is lost between two sides of a pair, in percent: none or less is noise.
    LossAtMost(f64),
    /// The figure is what is left of a whole, in percent.
    ShareAtLeast(f64),
}

/// Percent by which noise may make a share larger than the whole, or a loss less than none.
const NONSENSE: f64 = 5.0;

impl Reach {
    pub(crate) fn of(self, topic: Topic) -> Goal {
        Goal { topic, reach: self }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RatioAtLeast(goal) => write!(f, "≥ {goal}×"),
            Self::RatioAtMost(goal) => write!(f, "≤ {goal}×"),
            Self::AtLeast(goal) | Self::ShareAtLeast(goal) => write!(f, "≥ {goal}"),
            Self::AtMost(goal) | Self::LossAtMost(goal) => write!(f, "≤ {goal}"),
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reach.fmt(f)
    }
}

/// How a row came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Pass,
    Miss,
    /// Nothing can be said, and why.
    Undecided(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Miss => f.write_str("**MISS**"),
            Self::Undecided(why) => write!(f, "undecided: {why}"),
        }
    }
}

impl Row {
    /// A figure that is compared with nothing yet.
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, ours: Spread) -> Self {
        let (remark, doubt) = (String::new(), String::new());
        Self { name: name.into(), unit, ours, peer: None, goal: None, remark, doubt }
    }

    /// Beside a peer.
    pub(crate) fn beside(self, peer: impl Into<Option<Peer>>) -> Self {
        Self { peer: peer.into(), ..self }
    }

    /// Judged.
    pub(crate) fn judged(self, goal: impl Into<Option<Goal>>) -> Self {
        Self { goal: goal.into(), ..self }
    }

    /// With one more thing to know; nothing if it is empty.
    pub(crate) fn noting(mut self, more: impl AsRef<str>) -> Self {
        if !self.remark.is_empty() && !more.as_ref().is_empty() {
            self.remark.push_str("; ");
        }
        self.remark.push_str(more.as_ref());
        self
    }

    /// Undecided, and why.
    pub(crate) fn doubted(self, why: impl Into<String>) -> Self {
        Self { doubt: why.into(), ..self }
    }

    /// How it came out; None without a goal, or without the peer it is about.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        let reach = self.goal?.reach;
        let (figure, goal, at_least) = self.judgement(reach)?;
        let undecided = |why: &str| Some(Outcome::Undecided(why.to_owned()));
        if !self.doubt.is_empty() {
            return undecided(&self.doubt);
        }
        let Spread { median, low, high, .. } = figure;
        let sensible = match reach {
            Reach::LossAtMost(_) => high >= 0.0 && median >= -NONSENSE,
            Reach::ShareAtLeast(_) => (0.0..=100.0 + NONSENSE).contains(&median),
            _ => median > 0.0,
        };
        if !median.is_finite() || !sensible {
            return undecided("the figure makes no sense");
        }
        if matches!(reach, Reach::LossAtMost(_)) && (high - low) / 2.0 > goal {
            return undecided(&format!("known to ± {:.1} only", (high - low) / 2.0));
        }
        let reached = if at_least { median >= goal } else { median <= goal };
        Some(if reached { Outcome::Pass } else { Outcome::Miss })
    }

    /// Whether another run may come out otherwise: the goal is among what the median may be.
    pub(crate) fn is_close(&self) -> bool {
        let judgement = self.goal.and_then(|goal| self.judgement(goal.reach));
        judgement.is_some_and(|(Spread { low, high, .. }, goal, _)| low < goal && goal < high)
    }

    /// What is judged, the goal, and whether more is better.
    fn judgement(&self, reach: Reach) -> Option<(Spread, f64, bool)> {
        let ratio = self.peer.as_ref().map(|peer| peer.ratio);
        Some(match reach {
            Reach::RatioAtLeast(goal) => (ratio?, goal, true),
            Reach::RatioAtMost(goal) => (ratio?, goal, false),
            Reach::AtLeast(goal) | Reach::ShareAtLeast(goal) => (self.ours, goal, true),
            Reach::AtMost(goal) | Reach::LossAtMost(goal) => (self.ours, goal, false),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(figures: &[f64]) -> Spread {
        Spread::of(figures.iter().copied()).unwrap()
    }

    #[test]
    fn medians_of_odd_and_even_numbers_and_how_sure_they_are() {
        let odd = spread(&[3.0, 1.0, 2.0]);
        assert_eq!(odd, Spread { median: 2.0, min: 1.0, max: 3.0, low: 1.0, high: 3.0 });
        let even = spread(&[4.0, 1.0, 2.0, 9.0]);
        assert_eq!((even.median, even.min, even.max), (3.0, 1.0, 9.0));
        assert_eq!(Spread::of(std::iter::empty()), None);
        let many: Vec<f64> = (0..101).map(f64::from).collect();
        assert_eq!((spread(&many).low, spread(&many).high), (40.0, 60.0));
        let six = spread(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!((six.low, six.high), (1.0, 6.0));
    }

    #[test]
    fn a_goal_is_judged_on_the_median_of_what_it_is_about() {
        let ours = Spread { median: 12.0, min: 6.0, max: 20.0, low: 6.0, high: 20.0 };
        let vpp = Peer::from_elsewhere("VPP", 4.0, ours);
        assert_eq!((vpp.ratio.median, vpp.ratio.min, vpp.ratio.high), (3.0, 1.5, 5.0));
        let row = Row::new("table lookup", "Mpps", ours);
        let judged =
            |reach: Reach| row.clone().beside(vpp.clone()).judged(reach.of(Topic::Table)).outcome();
        assert_eq!(judged(Reach::RatioAtLeast(3.0)), Some(Outcome::Pass));
        assert_eq!(judged(Reach::RatioAtLeast(3.1)), Some(Outcome::Miss));
        assert_eq!(judged(Reach::RatioAtMost(2.9)), Some(Outcome::Miss));
        assert_eq!(judged(Reach::AtLeast(12.0)), Some(Outcome::Pass));
        assert_eq!(judged(Reach::AtMost(11.9)), Some(Outcome::Miss));
        assert_eq!(row.outcome(), None);
        assert_eq!(row.clone().judged(Reach::RatioAtLeast(1.0).of(Topic::Table)).outcome(), None);
        let at_least = |goal| row.clone().judged(Reach::AtLeast(goal).of(Topic::Table));
        assert!(at_least(19.0).is_close() && !at_least(21.0).is_close());
    }

    #[test]
    fn what_makes_no_sense_or_is_doubted_decides_nothing() {
        let outcome = |figures: &[f64], reach: Reach| {
            let row = Row::new("", "%", spread(figures)).judged(reach.of(Topic::Expiry));
            row.outcome().unwrap()
        };
        let undecided = |outcome| matches!(outcome, Outcome::Undecided(_));
        let loss = Reach::LossAtMost(3.0);
        assert_eq!(outcome(&[1.0, 2.0, 2.5], loss), Outcome::Pass);
        assert_eq!(outcome(&[4.0, 4.5, 5.0], loss), Outcome::Miss);
        // A little less than none is none.
        assert_eq!(outcome(&[-1.0, -0.5, 1.0], loss), Outcome::Pass);
        assert!(undecided(outcome(&[-18.0], loss)));
        assert!(undecided(outcome(&[-2.0, -1.5, -1.0], loss)), "surely less than none");
        assert!(undecided(outcome(&[-8.0, 2.0, 9.0], loss)), "more noise than is judged");
        let share = Reach::ShareAtLeast(90.0);
        assert_eq!(outcome(&[100.3], share), Outcome::Pass);
        assert!(undecided(outcome(&[180.0], share)));
        assert!(undecided(outcome(&[f64::NAN], share)));
        assert!(undecided(outcome(&[0.0], Reach::AtMost(3.0))), "nothing costs nothing");
        let doubted = Row::new("", "%", Spread::exact(100.0)).judged(share.of(Topic::Flood));
        assert!(undecided(doubted.doubted("no cores").outcome().unwrap()));
    }
}
