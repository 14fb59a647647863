//! The rows as a picture: throughput against keys and threads.

use std::error::Error;
use std::path::Path;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use crate::report::Row;

const COUNTS: [(&str, f64); 4] = [("1 k", 1e3), ("100 k", 1e5), ("1 M", 1e6), ("10 M", 1e7)];
const THREADS: &str = "keyed u64, 10 M keys, 2 threads";

type Line = (&'static str, RGBColor, Vec<(f64, f64)>);

/// Draws an SVG with what the rows have on keyed decisions.
///
/// # Errors
/// When the file cannot be written.
pub fn draw(rows: &[Row], file: &Path) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(file, (1_080, 460)).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(660);
    chart(&left, "by keys, one thread", "keys", (1e3..1.6e7).log_scale(), &by_keys(rows))?;
    chart(&right, "by threads, 10 million keys", "threads", 0.75..2.5, &by_threads(rows))?;
    root.present()?;
    Ok(())
}

fn chart<X>(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    unit: &str,
    x: X,
    lines: &[Line],
) -> Result<(), Box<dyn Error>>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
{
    let most = lines.iter().flat_map(|(_, _, points)| points).map(|(_, y)| *y).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(52)
        .build_cartesian_2d(x, 0.0..most * 1.3)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(unit)
        .y_desc("million decisions per second")
        .x_label_formatter(&|x| human((x * 10.0).round() / 10.0))
        .draw()?;
    for (name, color, points) in lines {
        let color = *color;
        chart
            .draw_series(
                LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3),
            )?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

fn human(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{} M", n / 1e6),
        n if n >= 1e3 => format!("{} k", n / 1e3),
        n if n.fract() == 0.0 => format!("{n}"),
        _ => String::new(),
    }
}

fn by_keys(rows: &[Row]) -> Vec<Line> {
    let points = |ns: &dyn Fn(&Row) -> Option<f64>| -> Vec<(f64, f64)> {
        let of = |name: &str| {
            let path = format!("keyed u64, {name} keys, uniform");
            rows.iter().filter(|row| row.path == path).find_map(ns)
        };
        COUNTS.iter().filter_map(|(name, count)| Some((*count, 1e3 / of(name)?))).collect()
    };
    let peer =
        |name: &'static str| points(&move |row: &Row| row.peer_ns.filter(|_| row.peer == name));
    vec![
        ("floor: no search, no eviction", RGBColor(150, 150, 150), points(&|row| row.floor_ns)),
        ("tidegate", RGBColor(0, 110, 190), points(&|row| row.ours_ns)),
        ("governor, ahash", RGBColor(215, 120, 0), peer("governor, ahash")),
        ("governor", RGBColor(170, 60, 60), peer("governor")),
    ]
}

fn by_threads(rows: &[Row]) -> Vec<Line> {
    let find = |path: &str, peer: &str| {
        rows.iter().find(|row| row.path == path && row.peer == peer).cloned()
    };
    let alone = find("keyed u64, 10 M keys, uniform", "governor, ahash");
    let two = find(THREADS, "governor, ahash");
    let ours = find(THREADS, "1 thread");
    let line = |one: Option<f64>, two: Option<f64>| -> Vec<(f64, f64)> {
        [(1.0, one), (2.0, two)].into_iter().filter_map(|(n, ns)| Some((n, 1e3 / ns?))).collect()
    };
    let ours_alone = ours.as_ref().and_then(|row| row.peer_ns);
    vec![
        ("tidegate", RGBColor(0, 110, 190), line(ours_alone, ours.and_then(|row| row.ours_ns))),
        (
            "governor, ahash",
            RGBColor(215, 120, 0),
            line(alone.and_then(|row| row.peer_ns), two.and_then(|row| row.peer_ns)),
        ),
    ]
}
