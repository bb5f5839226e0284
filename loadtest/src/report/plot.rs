//! Line and area plots as SVG text: axes with round numbers, marks for events, and what each column
//! holds on hover.
//!
//! Pure text from numbers; colours are classes that the page's style sheet knows in light and dark.
//! At most [`COLUMNS_MAX`] points a line: longer ones are thinned, keeping the highest of each
//! stretch, so no peak is lost.

use std::fmt::Write;

const HEIGHT: f64 = 250.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;

const COLUMNS_MAX: usize = 440;

/// Sheet that a plot is drawn on. Its text is as large on each, so a narrow window has one of its
/// own.
#[derive(Clone, Copy)]
struct Sheet {
    class: &'static str,
    width: f64,
    /// Labels below the plot, at most.
    labels_max: f64,
    /// Whether each column tells its values: nobody hovers with a finger.
    hovers: bool,
}

const SHEETS: [Sheet; 2] = [
    Sheet {
        class: "wide",
        width: 880.0,
        labels_max: 10.0,
        hovers: true,
    },
    Sheet {
        class: "narrow",
        width: 340.0,
        labels_max: 5.0,
        hovers: false,
    },
];

/// Points from left to right: where they stand, and their values.
type Line = Vec<(f64, f64)>;

/// A named line; its class is one of `c1` to `c6`.
pub(crate) struct Series {
    pub name: String,
    pub class: &'static str,
    pub points: Line,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Scale {
    Linear,
    Log,
}

pub(crate) struct Plot<'a> {
    pub title: &'a str,
    /// The unit of the values.
    pub unit: &'a str,
    pub note: &'a str,
    pub scale: Scale,
    /// The lowest is drawn with its area, the others stand on it.
    pub stacked: bool,
    /// Values with what stands below them; empty: seconds.
    pub x_labels: &'a [(f64, &'a str)],
    pub series: Vec<Series>,
    /// Events of the run: times with a text.
    pub events: &'a [(f64, String)],
}

/// Axes that place values on a sheet.
struct Axes {
    sheet: Sheet,
    x: (f64, f64),
    y: (f64, f64),
    scale: Scale,
}

impl Axes {
    fn has_x(&self, value: f64) -> bool {
        (self.x.0..=self.x.1).contains(&value)
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (value - self.x.0) / (self.x.1 - self.x.0).max(1e-9) * self.inner_width()
    }

    fn inner_width(&self) -> f64 {
        self.sheet.width - LEFT - RIGHT
    }

    fn y(&self, value: f64) -> f64 {
        let (low, high) = self.y;
        let (low, high, value) = match self.scale {
            Scale::Linear => (low, high, value),
            Scale::Log => (low.log10(), high.log10(), value.max(low).log10()),
        };
        HEIGHT - BOTTOM - (value - low) / (high - low).max(1e-9) * (HEIGHT - TOP - BOTTOM)
    }
}

impl Plot<'_> {
    /// A figure with its caption and legend; nothing where there are no points.
    pub(crate) fn to_html(&self) -> String {
        if self.series.iter().all(|series| series.points.is_empty()) {
            return String::new();
        }
        let title = escape(self.title);
        let sheets = SHEETS.map(|sheet| self.to_svg(sheet));
        format!(
            "<figure><figcaption><b>{title}</b> <span>{}</span>{}</figcaption>{}</figure>\n",
            escape(self.note),
            self.legend(),
            sheets.concat(),
        )
    }

    fn to_svg(&self, sheet: Sheet) -> String {
        let Sheet { class, width, .. } = sheet;
        let title = escape(self.title);
        format!(
            "<svg class=\"{class}\" viewBox=\"0 0 {width} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">{}</svg>",
            self.drawing(sheet),
        )
    }

    /// Draws the sheet from the bottom up.
    fn drawing(&self, sheet: Sheet) -> String {
        let thin = self.series.iter().map(|series| thinned(&series.points));
        let own: Vec<Line> = thin.collect();
        let mut lines = own.clone();
        if self.stacked {
            stack(&mut lines);
        }
        let axes = self.axes(sheet, &lines);
        let mut svg = String::new();
        self.draw_grid(&axes, &mut svg);
        for (series, line) in self.series.iter().zip(&lines).rev() {
            self.draw_line(&axes, series.class, line, &mut svg);
        }
        self.draw_events(&axes, &mut svg);
        if sheet.hovers {
            self.draw_hover(&axes, &own, &mut svg);
        }
        svg
    }

    fn legend(&self) -> String {
        if self.series.len() < 2 {
            return String::new();
        }
        let mut entries = String::new();
        for Series { name, class, .. } in &self.series {
            entries += &format!("<i class=\"{class}\">{}</i>", escape(name));
        }
        format!("<div class=\"legend\">{entries}</div>")
    }

    fn axes(&self, sheet: Sheet, lines: &[Line]) -> Axes {
        let mut x = (f64::MAX, f64::MIN);
        let mut high = 0.0_f64;
        for (at, value) in lines.iter().flatten() {
            x = (x.0.min(*at), x.1.max(*at));
            high = high.max(*value);
        }
        debug_assert!(x.0 <= x.1, "there is a point");
        let y = match self.scale {
            Scale::Linear => linear_range(high),
            Scale::Log => logarithmic_range(lines, high),
        };
        Axes {
            sheet,
            x,
            y,
            scale: self.scale,
        }
    }

    fn draw_grid(&self, axes: &Axes, svg: &mut String) {
        for value in self.y_ticks(axes) {
            draw_y_tick(axes, value, svg);
        }
        for (value, text) in self.x_labels {
            if axes.has_x(*value) {
                draw_x_label(axes, *value, text, svg);
            }
        }
        if self.x_labels.is_empty() {
            draw_seconds(axes, svg);
        }
    }

    fn y_ticks(&self, axes: &Axes) -> Vec<f64> {
        let (low, high) = axes.y;
        match self.scale {
            Scale::Linear => {
                let step = nice_step(high);
                let ticks = 0..=(high / step).round() as u32;
                ticks.map(|tick| f64::from(tick) * step).collect()
            }
            Scale::Log => {
                let decades = 0..=(high / low).log10().round() as i32;
                decades.map(|decade| low * 10_f64.powi(decade)).collect()
            }
        }
    }

    fn draw_line(&self, axes: &Axes, class: &str, line: &[(f64, f64)], svg: &mut String) {
        let path = path(axes, line.iter());
        if let (true, [first, .., last] | [first @ last]) = (self.stacked, line) {
            let floor = HEIGHT - BOTTOM;
            let (left, right) = (axes.x(first.0), axes.x(last.0));
            let _ = write!(
                svg,
                "<path class=\"area {class}\" d=\"{path}L{right:.1} {floor}L{left:.1} {floor}Z\"/>"
            );
        }
        let _ = write!(svg, "<path class=\"line {class}\" d=\"{path}\"/>");
    }

    fn draw_events(&self, axes: &Axes, svg: &mut String) {
        for (at, text) in self.events {
            if axes.has_x(*at) {
                draw_event(axes.x(*at), text, svg);
            }
        }
    }

    /// Draws a column for each point, which tells its values.
    fn draw_hover(&self, axes: &Axes, lines: &[Line], svg: &mut String) {
        const COLUMN: f64 = HEIGHT - TOP - BOTTOM;
        let Some(longest) = lines.iter().max_by_key(|line| line.len()) else {
            return;
        };
        let width = axes.inner_width() / longest.len().max(1) as f64;
        for (place, (x, _)) in longest.iter().enumerate() {
            let left = (axes.x(*x) - width / 2.0).max(LEFT);
            let text = escape(self.values_at(place, *x, lines).trim_end());
            let _ = write!(
                svg,
                "<rect class=\"hover\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{COLUMN}\"><title>{text}</title></rect>"
            );
        }
    }

    /// The values of all lines at a place, a line of text each.
    fn values_at(&self, place: usize, x: f64, lines: &[Line]) -> String {
        let mut text = String::new();
        if self.x_labels.is_empty() {
            let _ = writeln!(text, "{} s", short(x));
        }
        for (series, line) in self.series.iter().zip(lines) {
            if let Some((_, y)) = line.get(place) {
                let _ = writeln!(text, "{}: {} {}", series.name, short(*y), self.unit);
            }
        }
        text
    }
}

/// Ranges from 0 to a round number that is not less than `high`.
fn linear_range(high: f64) -> (f64, f64) {
    let high = high.max(1e-6);
    let step = nice_step(high);
    (0.0, step * (high / step).ceil())
}

/// Ranges from one power of ten to another, with all values that have a logarithm between them.
fn logarithmic_range(lines: &[Line], high: f64) -> (f64, f64) {
    let mut low = high;
    for (_, value) in lines.iter().flatten() {
        if *value > 0.0 {
            low = low.min(*value);
        }
    }
    let low = low.max(1e-3);
    let high = high.max(low * 1.01);
    let from = 10_f64.powf(low.log10().floor());
    (from, 10_f64.powf(high.log10().ceil()))
}

fn draw_y_tick(axes: &Axes, value: f64, svg: &mut String) {
    let right_end = axes.sheet.width - RIGHT;
    const TEXT_END: f64 = LEFT - 8.0;
    let y = axes.y(value);
    let baseline = y + 4.0;
    // Writing to a String cannot fail, here and elsewhere.
    let _ = write!(
        svg,
        "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right_end}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
         <text class=\"tick\" x=\"{TEXT_END}\" y=\"{baseline:.1}\" text-anchor=\"end\">{}</text>",
        short(value)
    );
}

fn draw_x_label(axes: &Axes, value: f64, text: &str, svg: &mut String) {
    const BASELINE: f64 = HEIGHT - 8.0;
    let x = axes.x(value);
    let _ = write!(
        svg,
        "<text class=\"tick\" x=\"{x:.1}\" y=\"{BASELINE}\" text-anchor=\"middle\">{text}</text>"
    );
}

fn draw_seconds(axes: &Axes, svg: &mut String) {
    let (from, to) = axes.x;
    let mut step = nice_step(to - from);
    while (to - from) / step > axes.sheet.labels_max {
        step *= 2.0;
    }
    let mut value = (from / step).ceil() * step;
    while value <= to {
        draw_x_label(axes, value, &format!("{} s", short(value)), svg);
        value += step;
    }
}

fn draw_event(x: f64, text: &str, svg: &mut String) {
    const FLOOR: f64 = HEIGHT - BOTTOM;
    let _ = write!(
        svg,
        "<g class=\"event\"><line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{FLOOR}\"/>\
         <circle cx=\"{x:.1}\" cy=\"{TOP}\" r=\"4\"/><title>{}</title></g>",
        escape(text)
    );
}

/// The path of a line. Where a logarithm has no place for a value, nothing was measured: the line
/// has a gap.
fn path<'a>(axes: &Axes, points: impl Iterator<Item = &'a (f64, f64)>) -> String {
    let mut path = String::new();
    let mut command = 'M';
    for (x, y) in points {
        if axes.scale == Scale::Log && *y <= 0.0 {
            command = 'M';
            continue;
        }
        let _ = write!(path, "{command}{:.1} {:.1}", axes.x(*x), axes.y(*y));
        command = 'L';
    }
    path
}

/// Puts each line on top of the one before it.
fn stack(lines: &mut [Line]) {
    for at in 1..lines.len() {
        let (below, above) = lines.split_at_mut(at);
        for (point, under) in above[0].iter_mut().zip(&below[at - 1]) {
            point.1 += under.1;
        }
    }
}

/// The highest point of each stretch.
fn thinned(points: &[(f64, f64)]) -> Line {
    let stretch = points.len().div_ceil(COLUMNS_MAX).max(1);
    let thin: Line = points.chunks(stretch).map(highest).collect();
    debug_assert!(thin.len() <= COLUMNS_MAX, "a column each");
    thin
}

/// The first of the highest points.
fn highest(points: &[(f64, f64)]) -> (f64, f64) {
    let mut highest = points[0];
    for point in points {
        if point.1 > highest.1 {
            highest = *point;
        }
    }
    highest
}

/// 1, 2 or 5 times a power of ten, four to nine times in `range`.
fn nice_step(range: f64) -> f64 {
    let rough = range.max(1e-9) / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let fits = |factor: &f64| factor * power <= rough * 1.000_001;
    let factor = [5.0, 2.0, 1.0].into_iter().find(fits);
    factor.unwrap_or(1.0) * power
}

/// The number with at most three digits that matter.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{}M", three_digits(value / 1e6)),
        size if size >= 1e4 => format!("{}k", three_digits(value / 1e3)),
        size if size > 0.0 && size < 0.01 => format!("{value:.3}"),
        _ => three_digits(value),
    }
}

fn three_digits(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || value.fract().abs() < 1e-9 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn steps_are_round_and_few(range in 1e-3_f64..1e9) {
            let step = nice_step(range);
            let ticks = range / step;
            prop_assert!((3.9..=10.1).contains(&ticks), "{range}: {ticks}");
        }

        #[test]
        fn a_peak_is_never_thinned_away(values in prop::collection::vec(0.0_f64..1e6, 1..3000)) {
            let points: Vec<_> = values.iter().enumerate().map(|(x, y)| (x as f64, *y)).collect();
            let thin = thinned(&points);
            let highest = |points: &[(f64, f64)]| points.iter().map(|point| point.1).fold(0.0, f64::max);
            prop_assert!(thin.len() <= COLUMNS_MAX);
            prop_assert_eq!(highest(&thin), highest(&points));
        }
    }

    #[test]
    fn what_was_not_measured_is_a_gap() {
        let axes = Axes {
            sheet: SHEETS[0],
            x: (0.0, 3.0),
            y: (1.0, 10.0),
            scale: Scale::Log,
        };
        let points = [(0.0, 5.0), (1.0, 0.0), (2.0, 5.0), (3.0, 5.0)];
        assert_eq!(path(&axes, points.iter()).matches('M').count(), 2);
        assert_eq!(
            path(
                &Axes {
                    scale: Scale::Linear,
                    ..axes
                },
                points.iter()
            )
            .matches('M')
            .count(),
            1
        );
    }

    #[test]
    fn numbers_are_short() {
        let shorts = [0.0, 0.004, 0.25, 7.5, 42.0, 1234.0, 20_003.0, 1.5e6].map(short);
        assert_eq!(
            shorts,
            ["0", "0.004", "0.25", "7.5", "42", "1234", "20k", "1.5M"]
        );
    }

    #[test]
    fn all_points_lie_on_the_sheet() {
        let series = Series {
            name: "a<b".into(),
            class: "c1",
            points: vec![(0.0, 0.0), (1.0, 950.0), (2.0, 0.5)],
        };
        for scale in [Scale::Linear, Scale::Log] {
            let series = Series {
                name: series.name.clone(),
                points: series.points.clone(),
                ..series
            };
            let plot = Plot {
                title: "t",
                unit: "ms",
                note: "",
                scale,
                stacked: false,
                x_labels: &[],
                series: vec![series],
                events: &[],
            };
            for sheet in SHEETS {
                let axes = plot.axes(sheet, &[thinned(&plot.series[0].points)]);
                for (x, y) in &plot.series[0].points {
                    assert!(
                        (LEFT..=sheet.width).contains(&axes.x(*x))
                            && (TOP - 0.1..=HEIGHT - BOTTOM + 0.1).contains(&axes.y(*y))
                    );
                }
            }
            assert!(plot.to_html().contains("a&lt;b"));
        }
    }
}
