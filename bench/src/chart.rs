//! Charts of measures in SVG: bars in a group for each row, or lines along an axis.
//!
//! Our line is thick and red, the lines of peers are thinner, and a limit is grey. plotters draws
//! the charts; its errors cannot occur for a picture in memory.

use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;

use crate::report::{Chart, Measure, Role, Row, Unit};
use crate::stats::Better;

const WIDTH: u32 = 760;
/// The height of a chart with lines. A chart with bars is as high as its bars.
const HEIGHT: u32 = 400;
const BAR: u32 = 30;
const LABEL: u32 = 30;
const FONT: &str = "sans-serif";
const OURS: [RGBColor; 3] = [RGBColor(200, 30, 45), RGBColor(236, 140, 150), RGBColor(120, 20, 60)];
const LIMIT: RGBColor = RGBColor(150, 150, 150);
const PEERS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(44, 160, 44),
    RGBColor(255, 127, 14),
    RGBColor(148, 103, 189),
    RGBColor(23, 190, 207),
    RGBColor(140, 86, 75),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// The points of one contender: the place on the axis, and the median.
struct Line<'a> {
    name: &'a str,
    role: Role,
    color: RGBColor,
    points: Vec<(f64, f64)>,
}

/// Draws the chart. Returns `None` when the measure has no chart or no figures.
pub fn draw(measure: &Measure) -> Option<String> {
    let lines = lines(measure);
    let values: Vec<f64> = lines.iter().flat_map(|line| &line.points).map(|p| p.1).collect();
    let top = values.iter().copied().reduce(f64::max).filter(|&top| top > 0.0)?;
    let low = values.iter().copied().reduce(f64::min)?;
    let mut picture = String::new();
    let height = match measure.chart {
        Chart::Bars => 56 + groups(measure).map(|group| group.height()).sum::<u32>(),
        Chart::Lines { .. } | Chart::None => HEIGHT,
    };
    let area = SVGBackend::with_string(&mut picture, (WIDTH, height)).into_drawing_area();
    let drawn = match measure.chart {
        Chart::None => return None,
        Chart::Bars => bars(&area, measure, &lines, top),
        Chart::Lines { log_x, log_y } => {
            let along = lines.iter().flat_map(|line| &line.points).map(|p| p.0);
            let right = along.clone().reduce(f64::max)?;
            let left = along.reduce(f64::min)?;
            let right = if right > left { right } else { left + 1.0 };
            // A logarithm has no zero, and the chart needs room above the lines.
            let (y, high) = (low / 2.0, top * 2.0);
            let (x, linear) = (left.max(f64::MIN_POSITIVE), 0.0..top * 1.1);
            match (log_x, log_y) {
                (true, true) => {
                    plot(&area, measure, &lines, (x..right).log_scale(), (y..high).log_scale())
                }
                (true, false) => plot(&area, measure, &lines, (x..right).log_scale(), linear),
                (false, true) => plot(&area, measure, &lines, left..right, (y..high).log_scale()),
                (false, false) => plot(&area, measure, &lines, left..right, linear),
            }
        }
    };
    drawn.and_then(|()| Ok(area.present()?)).expect("a string takes any picture");
    drop(area);
    Some(picture)
}

fn lines(measure: &Measure) -> Vec<Line<'_>> {
    let (mut ours, mut peers) = (OURS.iter().cycle(), PEERS.iter().cycle());
    let mut line = |(name, role)| {
        let points = measure.rows.iter().filter_map(|row| {
            let median = row.cell(name)?.summary()?.median;
            Some((row.at, median))
        });
        let color = match role {
            Role::Ours => *ours.next().expect("a cycle has no end"),
            Role::Limit => LIMIT,
            Role::Peer => *peers.next().expect("a cycle has no end"),
        };
        Line { name, role, color, points: points.collect() }
    };
    let lines = measure.contenders().into_iter().map(&mut line);
    lines.filter(|line| !line.points.is_empty()).collect()
}

/// The bars of one row.
struct Group<'a> {
    row: &'a Row,
    has_label: bool,
}

impl Group<'_> {
    fn height(&self) -> u32 {
        let bars = self.row.cells.iter().filter(|cell| cell.summary().is_some()).count();
        BAR * u32::try_from(bars).unwrap_or(0) + if self.has_label { LABEL } else { 0 }
    }
}

fn groups(measure: &Measure) -> impl Iterator<Item = Group<'_>> {
    let has_label = measure.rows.len() > 1;
    measure.rows.iter().map(move |row| Group { row, has_label })
}

/// Draws horizontal bars, so that long names have room.
fn bars(area: &Area<'_>, measure: &Measure, lines: &[Line<'_>], top: f64) -> Drawn {
    area.fill(&WHITE)?;
    area.draw(&Text::new(title(measure), (16, 12), (FONT, 18)))?;
    let (left, room) = (f64::from(WIDTH) * 0.36, f64::from(WIDTH) * 0.48);
    let (bar, label) = (BAR as i32, LABEL as i32);
    let mut y = 44;
    for group in groups(measure) {
        if group.has_label {
            let style = (FONT, 14).into_font().style(FontStyle::Bold);
            area.draw(&Text::new(group.row.label.clone(), (16, y + 6), style))?;
            y += label;
        }
        for line in lines {
            let cell = group.row.cell(line.name);
            let Some(summary) = cell.and_then(|cell| cell.summary()) else { continue };
            let end = (left + (room * summary.median / top).max(1.0)) as i32;
            let corners = [(left as i32, y), (end, y + bar - 8)];
            area.draw(&Text::new(line.name.to_owned(), (16, y + 4), (FONT, 14)))?;
            area.draw(&Rectangle::new(corners, line.color.filled()))?;
            let shown = measure.unit.show(summary.median);
            area.draw(&Text::new(shown, (end + 6, y + 4), (FONT, 14)))?;
            y += bar;
        }
    }
    Ok(())
}

fn plot<X, Y>(area: &Area<'_>, measure: &Measure, lines: &[Line<'_>], x: X, y: Y) -> Drawn
where
    X: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
    Y: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .caption(title(measure), (FONT, 18))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(80)
        .build_cartesian_2d(x, y)?;
    let unit = measure.unit;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .x_desc(&measure.axis)
        .x_label_formatter(&|&at| axis_label(measure, at))
        .y_label_formatter(&move |&value| unit.show(value))
        .label_style((FONT, 13))
        .draw()?;
    for line in lines {
        let width = if line.role == Role::Ours { 4 } else { 2 };
        let style = line.color.stroke_width(width);
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), style).point_size(width + 1))?
            .label(line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    // The legend is placed where the lines are not.
    let ends =
        lines.iter().filter_map(|line| Some((line.points.first()?.1, line.points.last()?.1)));
    let falls = ends.filter(|(first, last)| first > last).count() * 2 > lines.len();
    let position = match falls {
        true => SeriesLabelPosition::UpperRight,
        false => SeriesLabelPosition::UpperLeft,
    };
    // Our line is drawn again, so that no other line hides it.
    if let Some(line) = lines.iter().find(|line| line.role == Role::Ours) {
        let series = LineSeries::new(line.points.iter().copied(), line.color.stroke_width(4));
        chart.draw_series(series)?;
    }
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(210, 210, 210))
        .label_font((FONT, 13))
        .draw()?;
    Ok(())
}

fn title(measure: &Measure) -> String {
    let better = if measure.better == Better::Lower { "less" } else { "more" };
    format!("{} ({better} is better)", measure.title)
}

fn axis_label(measure: &Measure, at: f64) -> String {
    let unit = if measure.axis.contains("bytes") { Unit::Bytes } else { Unit::Count };
    unit.show(at).replace(".00", "").replace(".0", "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Cell, Outcome};
    use crate::stats::Summary;

    fn measure(chart: Chart, places: &[f64]) -> Measure {
        let mut measure = Measure::new("t", Unit::Nanoseconds, Better::Lower).along("MiB", chart);
        for &at in places {
            let cell = |contender: &str, role, value: f64| Cell {
                contender: contender.to_owned(),
                role,
                outcome: Outcome::Measured(Summary::of(&[vec![value]]).unwrap()),
                ratio: None,
            };
            let cells = vec![
                cell("ours", Role::Ours, 500.0),
                cell("theirs & <others>", Role::Peer, 500.0 + at * 1000.0),
                cell("kernel", Role::Limit, 400.0),
            ];
            measure.rows.push(Row { at, label: format!("{at}"), cells });
        }
        measure
    }

    #[test]
    fn every_kind_of_chart_names_every_contender() {
        let lines = |log_x, log_y| Chart::Lines { log_x, log_y };
        for (chart, places) in [
            (Chart::Bars, &[1.0][..]),
            (Chart::Bars, &[1.0, 2.0]),
            (lines(false, false), &[0.0, 10.0, 20.0]),
            (lines(false, true), &[0.0, 10.0, 20.0]),
            (lines(true, false), &[16.0, 1024.0]),
            (lines(true, true), &[16.0, 1024.0]),
            (lines(true, true), &[16.0]),
        ] {
            let picture = draw(&measure(chart, places)).unwrap();
            assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
            for name in ["ours", "theirs &amp; &lt;others&gt;", "kernel"] {
                assert!(picture.contains(name), "{chart:?}: no {name}");
            }
        }
    }

    #[test]
    fn a_measure_without_figures_has_no_chart() {
        assert!(draw(&measure(Chart::Bars, &[])).is_none());
        assert!(draw(&measure(Chart::None, &[1.0])).is_none());
    }
}
