//! Plots as SVG: horizontal bars beside each other or in two pieces, written by hand because that
//! is all the report draws.

use std::fmt::Write as _;

/// Pixels of the longest bar, and of the figure behind it.
const BARS: f64 = 520.0;
const RIGHT: f64 = 110.0;
/// Pixels of a letter, about.
const LETTER: f64 = 6.6;
const TOP: f64 = 64.0;
const BAR: f64 = 15.0;
const GAP: f64 = 12.0;
const COLOURS: [&str; 5] = ["#1b6ca8", "#b9c4cf", "#8d99a6", "#d8b26e", "#7fb08a"];
/// What is not ours, and what is.
const PIECES: [&str; 2] = [COLOURS[1], COLOURS[0]];
const GOAL: &str = "#c0392b";

/// One bar of a group.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bar {
    /// Whose figure it is; the same name has the same colour.
    pub(super) series: String,
    pub(super) value: f64,
    /// Least and greatest, drawn as a whisker.
    pub(super) range: (f64, f64),
}

/// The bars of one workload.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) bars: Vec<Bar>,
    /// What the first bar is to reach.
    pub(super) goals: Vec<f64>,
}

struct Drawing {
    body: String,
    scale: f64,
    /// Where bars begin.
    left: f64,
    y: f64,
}

impl Drawing {
    /// For figures up to the greatest, with names on the left.
    fn new<'a>(greatest: f64, names: impl Iterator<Item = &'a str>) -> Self {
        let scale = BARS / if greatest > 0.0 { greatest } else { 1.0 };
        let longest = names.map(|name| name.chars().count()).max().unwrap_or(0);
        Self { body: String::new(), scale, left: 24.0 + LETTER * longest as f64, y: TOP }
    }

    fn rect(&mut self, from: f64, to: f64, colour: &str) {
        let (x, width) = (self.left + from * self.scale, ((to - from) * self.scale).max(0.5));
        let y = self.y;
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" \
             fill=\"{colour}\"/>",
            BAR - 2.0
        );
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        let (x1, x2) = (self.left + from.0 * self.scale, self.left + to.0 * self.scale);
        let _ = writeln!(
            self.body,
            "<line x1=\"{x1:.1}\" y1=\"{:.1}\" x2=\"{x2:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" \
             stroke-width=\"{width}\"/>",
            from.1, to.1
        );
    }

    /// Text at a place in pixels.
    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escape(text)
        );
    }

    fn legend(&mut self, names: &[&str], colours: &[&str], goal: bool) {
        let mut x = self.left;
        for (name, colour) in names.iter().zip(colours.iter().cycle()) {
            let _ = writeln!(
                self.body,
                "<rect x=\"{x:.1}\" y=\"36\" width=\"12\" height=\"12\" fill=\"{colour}\"/>"
            );
            self.text(x + 16.0, 47.0, "start", name);
            x += 34.0 + LETTER * name.chars().count() as f64;
        }
        if goal {
            let _ = writeln!(
                self.body,
                "<line x1=\"{x:.1}\" y1=\"34\" x2=\"{x:.1}\" y2=\"50\" stroke=\"{GOAL}\" \
                 stroke-width=\"2.5\"/>"
            );
            self.text(x + 6.0, 47.0, "start", "goal");
        }
    }

    fn finish(self, title: &str) -> String {
        let (width, height) = (self.left + BARS + RIGHT, self.y + GAP);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"12\" \
             fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"16\" y=\"22\" font-size=\"15\" font-weight=\"bold\">{}</text>\n{}</svg>\n",
            escape(title),
            self.body
        )
    }
}

/// Groups of bars, each bar with its figure.
pub(super) fn bars(title: &str, groups: &[Group]) -> String {
    let of_group = |group: &Group| {
        let bars = group.bars.iter().map(|bar| bar.range.1.max(bar.value));
        bars.chain(group.goals.iter().copied()).fold(0.0, f64::max)
    };
    let greatest = groups.iter().map(of_group).fold(0.0, f64::max);
    let mut drawing = Drawing::new(greatest, groups.iter().map(|group| group.name.as_str()));
    let mut names: Vec<&str> = Vec::new();
    for bar in groups.iter().flat_map(|group| &group.bars) {
        if !names.contains(&bar.series.as_str()) {
            names.push(&bar.series);
        }
    }
    drawing.legend(&names, &COLOURS, groups.iter().any(|group| !group.goals.is_empty()));
    for group in groups {
        let top = drawing.y;
        drawing.text(drawing.left - 8.0, top + BAR - 4.0, "end", &group.name);
        for bar in &group.bars {
            let place = names.iter().position(|name| *name == bar.series).unwrap_or(0);
            drawing.rect(0.0, bar.value, COLOURS[place % COLOURS.len()]);
            let middle = drawing.y + BAR / 2.0 - 1.0;
            let (least, greatest) = bar.range;
            drawing.line((least, middle), (greatest, middle), "#444", 1.0);
            let end = drawing.left + greatest.max(bar.value) * drawing.scale + 5.0;
            drawing.text(end, middle + 4.0, "start", &figure(bar.value));
            drawing.y += BAR;
        }
        for &goal in &group.goals {
            drawing.line((goal, top - 2.0), (goal, top + BAR), GOAL, 2.5);
        }
        drawing.y += GAP;
    }
    drawing.finish(title)
}

/// Bars of two pieces, with the sum.
pub(super) fn stacked(title: &str, pieces: [&str; 2], rows: &[(String, f64, f64)]) -> String {
    let greatest =
        rows.iter().map(|(_, first, second)| first + second.max(0.0)).fold(0.0, f64::max);
    let mut drawing = Drawing::new(greatest, rows.iter().map(|(name, ..)| name.as_str()));
    drawing.legend(&pieces, &PIECES, false);
    for (name, first, second) in rows {
        drawing.text(drawing.left - 8.0, drawing.y + BAR - 4.0, "end", name);
        drawing.rect(0.0, *first, PIECES[0]);
        let sum = first + second.max(0.0);
        drawing.rect(*first, sum, PIECES[1]);
        let text = format!("{} + {}", figure(*first), figure(*second));
        drawing.text(
            drawing.left + sum * drawing.scale + 5.0,
            drawing.y + BAR - 4.0,
            "start",
            &text,
        );
        drawing.y += BAR + GAP / 2.0;
    }
    drawing.finish(title)
}

/// Three digits or so.
pub(super) fn figure(value: f64) -> String {
    format!("{value:.*}", digits(value))
}

/// Digits behind the point that make about three in all.
pub(super) fn digits(value: f64) -> usize {
    match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(series: &str, value: f64) -> Bar {
        Bar { series: series.to_owned(), value, range: (value * 0.9, value * 1.1) }
    }

    #[test]
    fn a_bar_is_as_long_as_its_figure_and_a_goal_stands_where_it_is() {
        let group = Group {
            name: "SNAT <1 K>".to_owned(),
            bars: vec![bar("ours", 20.0), bar("theirs", 5.0)],
            goals: vec![22.0],
        };
        let text = bars("Mpps", &[group]);
        let (scale, left) = (BARS / 22.0, 24.0 + LETTER * 10.0);
        assert!(text.contains(&format!("width=\"{:.1}\"", 20.0 * scale)), "{text}");
        assert!(text.contains(&format!("width=\"{:.1}\"", 5.0 * scale)), "{text}");
        assert!(text.contains(&format!("x1=\"{:.1}\"", left + 22.0 * scale)), "{text}");
        assert!(text.contains("SNAT &lt;1 K&gt;") && text.contains(">20.0</text>"));
        assert_eq!(text.matches("<svg").count(), text.matches("</svg>").count());
    }

    #[test]
    fn pieces_stand_behind_each_other_and_nothing_is_drawn_backwards() {
        let rows = [("a".to_owned(), 50.0, 100.0), ("b".to_owned(), 60.0, -5.0)];
        let text = stacked("cycles", ["floor", "own"], &rows);
        let (scale, left) = (BARS / 150.0, 24.0 + LETTER);
        assert!(text.contains(&format!("x=\"{:.1}\"", left + 50.0 * scale)), "{text}");
        assert!(text.contains("50.0 + 100") && !text.contains("width=\"-"));
    }

    #[test]
    fn no_figures_are_no_division() {
        assert!(!bars("none", &[]).contains("NaN"));
        assert!(!stacked("none", ["a", "b"], &[]).contains("inf"));
    }
}
