//! Line and area plots as SVG text: axes with round numbers, marks for events, and what each column
//! holds on hover.
//!
//! Pure text from numbers; colours are classes that the page's style sheet knows in light and dark.
//! At most [`COLUMNS_MAX`] points a line: longer ones are thinned, keeping the highest of each
//! stretch, so no peak is lost.

use std::fmt::Write;

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;

const COLUMNS_MAX: usize = 440;

/// A named line; its class is one of `c1` to `c6`.
pub struct Series {
    pub name: String,
    pub class: &'static str,
    pub points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Scale {
    Linear,
    Log,
}

pub struct Plot<'a> {
    pub title: &'a str,
    /// Of the values.
    pub unit: &'a str,
    pub note: &'a str,
    pub scale: Scale,
    /// The lowest is drawn with its area, the others stand on it.
    pub stacked: bool,
    /// Values with what stands below them; empty: seconds.
    pub x_labels: &'a [(f64, &'a str)],
    pub series: Vec<Series>,
    /// Times with a text.
    pub events: &'a [(f64, String)],
}

/// Where values lie on the sheet.
struct Axes {
    x: (f64, f64),
    y: (f64, f64),
    scale: Scale,
}

impl Axes {
    fn x(&self, value: f64) -> f64 {
        LEFT + (value - self.x.0) / (self.x.1 - self.x.0).max(1e-9) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let (low, high, value) = match self.scale {
            Scale::Linear => (self.y.0, self.y.1, value),
            Scale::Log => (
                self.y.0.log10(),
                self.y.1.log10(),
                value.max(self.y.0).log10(),
            ),
        };
        HEIGHT - BOTTOM - (value - low) / (high - low).max(1e-9) * (HEIGHT - TOP - BOTTOM)
    }
}

impl Plot<'_> {
    /// A figure with its caption and legend; nothing where there are no points.
    pub fn to_html(&self) -> String {
        if self.series.iter().all(|series| series.points.is_empty()) {
            return String::new();
        }
        let mut lines: Vec<Vec<(f64, f64)>> = self
            .series
            .iter()
            .map(|series| thinned(&series.points))
            .collect();
        let own = lines.clone();
        if self.stacked {
            stack(&mut lines);
        }
        let axes = self.axes(&lines);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(self.title)
        );
        self.draw_grid(&axes, &mut svg);
        for at in (0..lines.len()).rev() {
            self.draw_line(&axes, &lines, at, &mut svg);
        }
        self.draw_events(&axes, &mut svg);
        self.draw_hover(&axes, &own, &mut svg);
        svg += "</svg>";
        format!(
            "<figure><figcaption><b>{}</b> <span>{}</span>{}</figcaption>{svg}</figure>\n",
            escape(self.title),
            escape(self.note),
            self.legend()
        )
    }

    fn legend(&self) -> String {
        if self.series.len() < 2 {
            return String::new();
        }
        let entry =
            |series: &Series| format!("<i class=\"{}\">{}</i>", series.class, escape(&series.name));
        format!(
            "<div class=\"legend\">{}</div>",
            self.series.iter().map(entry).collect::<String>()
        )
    }

    fn axes(&self, lines: &[Vec<(f64, f64)>]) -> Axes {
        let all = || lines.iter().flatten();
        let x = all().fold((f64::MAX, f64::MIN), |(low, high), (x, _)| {
            (low.min(*x), high.max(*x))
        });
        let high = all().map(|(_, y)| *y).fold(0.0, f64::max);
        let y = match self.scale {
            Scale::Linear => (
                0.0,
                nice_step(high.max(1e-6)) * (high.max(1e-6) / nice_step(high.max(1e-6))).ceil(),
            ),
            Scale::Log => {
                let low = all()
                    .map(|(_, y)| *y)
                    .filter(|y| *y > 0.0)
                    .fold(high, f64::min)
                    .max(1e-3);
                (
                    10_f64.powf(low.log10().floor()),
                    10_f64.powf(high.max(low * 1.01).log10().ceil()),
                )
            }
        };
        Axes {
            x,
            y,
            scale: self.scale,
        }
    }

    fn draw_grid(&self, axes: &Axes, svg: &mut String) {
        for value in self.y_ticks(axes) {
            let y = axes.y(value);
            let right = WIDTH - RIGHT;
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            );
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                short(value)
            );
        }
        let mut label = |value: f64, text: &str| {
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                axes.x(value),
                HEIGHT - 8.0
            );
        };
        self.x_labels
            .iter()
            .filter(|(value, _)| (axes.x.0..=axes.x.1).contains(value))
            .for_each(|(value, text)| label(*value, text));
        if self.x_labels.is_empty() {
            let step = nice_step(axes.x.1 - axes.x.0);
            let mut value = (axes.x.0 / step).ceil() * step;
            while value <= axes.x.1 {
                label(value, &format!("{} s", short(value)));
                value += step;
            }
        }
    }

    fn y_ticks(&self, axes: &Axes) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = nice_step(axes.y.1);
                (0..=(axes.y.1 / step).round() as u32)
                    .map(|tick| f64::from(tick) * step)
                    .collect()
            }
            Scale::Log => {
                let decades = (axes.y.1 / axes.y.0).log10().round() as i32;
                (0..=decades)
                    .map(|decade| axes.y.0 * 10_f64.powi(decade))
                    .collect()
            }
        }
    }

    fn draw_line(&self, axes: &Axes, lines: &[Vec<(f64, f64)>], at: usize, svg: &mut String) {
        let class = self.series[at].class;
        let path = path(axes, lines[at].iter());
        if let (true, Some(first), Some(last)) = (self.stacked, lines[at].first(), lines[at].last())
        {
            let floor = HEIGHT - BOTTOM;
            let _ = write!(
                svg,
                "<path class=\"area {class}\" d=\"{path}L{:.1} {floor}L{:.1} {floor}Z\"/>",
                axes.x(last.0),
                axes.x(first.0)
            );
        }
        let _ = write!(svg, "<path class=\"line {class}\" d=\"{path}\"/>");
    }

    fn draw_events(&self, axes: &Axes, svg: &mut String) {
        for (at, text) in self
            .events
            .iter()
            .filter(|(at, _)| (axes.x.0..=axes.x.1).contains(at))
        {
            let (x, bottom) = (axes.x(*at), HEIGHT - BOTTOM);
            let _ = write!(
                svg,
                "<g class=\"event\"><line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
                 <circle cx=\"{x:.1}\" cy=\"{TOP}\" r=\"4\"/><title>{}</title></g>",
                escape(text)
            );
        }
    }

    /// A column for each point, which tells its values.
    fn draw_hover(&self, axes: &Axes, lines: &[Vec<(f64, f64)>], svg: &mut String) {
        let Some(longest) = lines.iter().max_by_key(|line| line.len()) else {
            return;
        };
        let width = (WIDTH - LEFT - RIGHT) / longest.len().max(1) as f64;
        for (at, (x, _)) in longest.iter().enumerate() {
            let left = (axes.x(*x) - width / 2.0).max(LEFT);
            let (height, mut text) = (HEIGHT - TOP - BOTTOM, String::new());
            if self.x_labels.is_empty() {
                let _ = writeln!(text, "{} s", short(*x));
            }
            for (series, line) in self.series.iter().zip(lines) {
                if let Some((_, y)) = line.get(at) {
                    let _ = writeln!(text, "{}: {} {}", series.name, short(*y), self.unit);
                }
            }
            let _ = write!(
                svg,
                "<rect class=\"hover\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\"><title>{}</title></rect>",
                escape(text.trim_end())
            );
        }
    }
}

/// Where a logarithm has no place for a value, nothing was measured: the line has a gap.
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

/// Each line on top of those before it.
fn stack(lines: &mut [Vec<(f64, f64)>]) {
    for at in 1..lines.len() {
        let (below, above) = lines.split_at_mut(at);
        above[0]
            .iter_mut()
            .zip(&below[at - 1])
            .for_each(|(point, under)| point.1 += under.1);
    }
}

/// The highest point of each stretch.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let stretch = points.len().div_ceil(COLUMNS_MAX).max(1);
    points
        .chunks(stretch)
        .map(|chunk| {
            chunk.iter().fold(
                chunk[0],
                |high, point| if point.1 > high.1 { *point } else { high },
            )
        })
        .collect()
}

/// 1, 2 or 5 times a power of ten, four to nine times in `range`.
fn nice_step(range: f64) -> f64 {
    let rough = range.max(1e-9) / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [5.0, 2.0, 1.0]
        .into_iter()
        .find(|factor| factor * power <= rough * 1.000_001)
        .unwrap_or(1.0);
    factor * power
}

/// At most three digits that matter.
pub fn short(value: f64) -> String {
    let with_unit = |value: f64, unit: &str| {
        let digits = if value.abs() >= 100.0 || value.fract().abs() < 1e-9 {
            0
        } else if value.abs() >= 10.0 {
            1
        } else {
            2
        };
        let text = format!("{value:.digits$}");
        let text = if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.')
        } else {
            &text
        };
        format!("{text}{unit}")
    };
    match value.abs() {
        size if size >= 1e6 => with_unit(value / 1e6, "M"),
        size if size >= 1e4 => with_unit(value / 1e3, "k"),
        size if size > 0.0 && size < 0.01 => format!("{value:.3}"),
        _ => with_unit(value, ""),
    }
}

pub fn escape(text: &str) -> String {
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
            let axes = plot.axes(&[thinned(&plot.series[0].points)]);
            for (x, y) in &plot.series[0].points {
                assert!(
                    (LEFT..=WIDTH).contains(&axes.x(*x))
                        && (TOP - 0.1..=HEIGHT - BOTTOM + 0.1).contains(&axes.y(*y))
                );
            }
            assert!(plot.to_html().contains("a&lt;b"));
        }
    }
}
