//! What the live view looks like: a table of flows, or one flow's course. Must not know where figures come from.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Axis, Block, Borders, Cell, Chart, Dataset, GraphType, LegendPosition, Paragraph, Row, Table, TableState,
};
use tcpprobe_trace::fields::index;

use super::model::{Order, Point, Watched};
use crate::words::count;

/// What is shown besides the flows.
pub(super) struct Shown<'a> {
    /// What is sampled, and how.
    pub(super) what: &'a str,
    pub(super) samples_per_s: f64,
    pub(super) lost: u64,
    pub(super) order: Order,
    pub(super) paused: bool,
    /// Colours, unless the user wants none.
    pub(super) coloured: bool,
}

impl Shown<'_> {
    fn style(&self, color: Color) -> Style {
        if self.coloured { Style::new().fg(color) } else { Style::new() }
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// A chart's time axis is at least so long, seconds before now.
const SHORTEST_S: f64 = -10.0;
/// `snd_ssthresh` before the first loss (`TCP_INFINITE_SSTHRESH`).
const INFINITE: i64 = 0x7fff_ffff;

/// All flows, one of them selected.
pub(super) fn table(frame: &mut Frame<'_>, flows: &[&Watched], selected: &mut TableState, shown: &Shown<'_>) {
    let [head, body, foot] = parts(frame.area());
    header(frame, head, shown, &format!("{} by {}", counted(flows.len()), shown.order.name()));
    if flows.is_empty() {
        frame.render_widget(Paragraph::new("waiting for a TCP segment …").style(DIM), body);
    } else {
        let names =
            ["local", "remote", "cc", "sent", "received", "retrans", "srtt", "min", "cwnd", "in flight", "state"];
        let heading = names.map(|name| {
            let is_order = match shown.order {
                Order::Rate => name == "sent" || name == "received",
                Order::Loss => name == "retrans",
                Order::Rtt => name == "srtt",
            };
            let style = if is_order { BOLD.add_modifier(Modifier::UNDERLINED) } else { BOLD };
            let text =
                if LEFT.contains(&name) { Line::from(name) } else { Line::from(name).alignment(Alignment::Right) };
            Cell::new(text.style(style))
        });
        let address =
            |of: fn(&Watched) -> String| flows.iter().map(|f| of(f).len()).max().unwrap_or(0).clamp(10, 47) as u16;
        let (local, remote) = (address(|f| f.flow.local.to_string()), address(|f| f.flow.remote.to_string()));
        let widths = [local, remote, 6, 12, 12, 8, 9, 9, 6, 9, 8].map(Constraint::Length);
        let table = Table::new(flows.iter().map(|flow| row(flow, shown)), widths)
            .header(Row::new(heading))
            .row_highlight_style(REVERSED);
        frame.render_stateful_widget(table, body, selected);
    }
    footer(frame, foot, "↑ ↓ select   Enter one flow   s sort   p pause   q quit");
}

/// Columns of text; the others are numbers.
const LEFT: [&str; 4] = ["local", "remote", "cc", "state"];

fn row<'a>(flow: &Watched, shown: &Shown<'_>) -> Row<'a> {
    let last = flow.last();
    let number = |text: String| Cell::new(Line::from(text).alignment(Alignment::Right));
    let share = flow.retransmitted_share();
    let retransmitted = if flow.retransmissions == 0 { "-".to_owned() } else { format!("{:.2} %", share * 100.0) };
    let row = Row::new([
        Cell::new(flow.flow.local.to_string()),
        Cell::new(flow.flow.remote.to_string()),
        Cell::new(printable(flow.flow.congestion.as_deref().unwrap_or(""))),
        number(rate(last.sent_bits_per_s)),
        number(rate(last.received_bits_per_s)),
        number(retransmitted),
        number(milliseconds(flow.srtt_us())),
        number(milliseconds(flow.field(const { index("min_rtt_us") }))),
        number(plain(flow.field(const { index("snd_cwnd") }))),
        number(flow.in_flight_bytes().map_or_else(dash, bytes)),
        Cell::new(state(flow)),
    ]);
    match flow.field(const { index("ca_state") }) {
        _ if flow.has_ended() => row.style(DIM),
        Some(3 | 4) => row.style(shown.style(Color::Red)),
        _ => row,
    }
}

/// One flow: its figures, and how they have moved.
pub(super) fn flow(frame: &mut Frame<'_>, flow: &Watched, shown: &Shown<'_>) {
    let [head, body, foot] = parts(frame.area());
    header(frame, head, shown, &format!("{} → {}", flow.flow.local, flow.flow.remote));
    let [figures, windows, times] =
        Layout::vertical([Constraint::Length(4), Constraint::Fill(3), Constraint::Fill(2)]).areas(body);
    frame.render_widget(Paragraph::new(figures_of(flow)), figures);
    let series = |of: fn(&Point) -> Option<f64>, unit: f64| -> Vec<(f64, f64)> {
        let end = flow.last().mono_ns;
        flow.points.iter().filter_map(|p| Some(((p.mono_ns - end) as f64 / 1e9, of(p)? / unit))).collect()
    };
    let (cwnd, in_flight) = (series(|p| p.cwnd_bytes, 1e3), series(|p| p.in_flight_bytes, 1e3));
    let lines = [
        Series { name: "cwnd", points: &cwnd, style: shown.style(Color::Yellow) },
        Series { name: "in flight", points: &in_flight, style: shown.style(Color::Cyan) },
    ];
    chart(frame, windows, "kB", &lines);
    let srtt = series(|p| p.srtt_us, 1e3);
    chart(frame, times, "ms", &[Series { name: "srtt", points: &srtt, style: shown.style(Color::Green) }]);
    footer(frame, foot, "Esc all flows   p pause   q quit");
}

fn figures_of(flow: &Watched) -> Vec<Line<'static>> {
    let last = flow.last();
    let field =
        |name: &'static str, value: String| [Span::styled(format!("{name} "), DIM), Span::raw(format!("{value}   "))];
    let ssthresh = flow.field(const { index("snd_ssthresh") });
    let ssthresh = ssthresh.filter(|&n| n < INFINITE).map_or_else(|| "∞".to_owned(), |n| count(n.unsigned_abs()));
    let line = |fields: Vec<[Span<'static>; 2]>| Line::from(fields.concat());
    vec![
        line(vec![
            field("sent", rate(last.sent_bits_per_s)),
            field("received", rate(last.received_bits_per_s)),
            field("retransmitted", format!("{} segments", count(flow.retransmissions))),
            field("congestion", printable(flow.flow.congestion.as_deref().unwrap_or("-"))),
            field("state", state(flow)),
        ]),
        line(vec![
            field("cwnd", plain(flow.field(const { index("snd_cwnd") }))),
            field("ssthresh", ssthresh),
            field("packets out", plain(flow.field(const { index("packets_out") }))),
            field("lost", plain(flow.field(const { index("lost_out") }))),
            field("sacked", plain(flow.field(const { index("sacked_out") }))),
            field("in flight", flow.in_flight_bytes().map_or_else(dash, bytes)),
            field("window", flow.field(const { index("snd_wnd") }).map_or_else(dash, |n| bytes(n as f64))),
        ]),
        line(vec![
            field("srtt", milliseconds(flow.srtt_us())),
            field("min", milliseconds(flow.field(const { index("min_rtt_us") }))),
            field("RTO", milliseconds(flow.field(const { index("rto_us") }))),
            field("pacing", flow.field(const { index("pacing_rate") }).map_or_else(dash, |n| rate(n as f64 * 8.0))),
            field("samples", count(flow.samples)),
        ]),
    ]
}

/// A line of a chart: its name, its points in seconds and in the chart's unit, and how it is drawn.
struct Series<'a> {
    name: &'static str,
    points: &'a [(f64, f64)],
    style: Style,
}

fn chart(frame: &mut Frame<'_>, area: Rect, unit: &str, series: &[Series<'_>]) {
    let points = || series.iter().flat_map(|s| s.points);
    let highest = points().map(|p| p.1).fold(0.0, f64::max);
    let top = if highest > 0.0 { highest * 1.1 } else { 1.0 };
    let span_s = points().map(|p| p.0).fold(SHORTEST_S, f64::min);
    let datasets = series.iter().map(|s| {
        let dataset = Dataset::default().name(s.name).marker(Marker::Braille).graph_type(GraphType::Line);
        dataset.style(s.style).data(s.points)
    });
    let precise = |value: f64| if top < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") };
    let chart = Chart::new(datasets.collect())
        .block(Block::new().borders(Borders::TOP).title(format!(" {unit} ")))
        .x_axis(Axis::default().bounds([span_s, 0.0]).labels([
            format!("{span_s:.0} s"),
            format!("{:.0} s", span_s / 2.0),
            "now".into(),
        ]))
        .y_axis(Axis::default().bounds([0.0, top]).labels([precise(0.0), precise(top / 2.0), precise(top)]))
        .legend_position(Some(LegendPosition::TopLeft))
        .hidden_legend_constraints((Constraint::Ratio(1, 2), Constraint::Ratio(1, 2)));
    frame.render_widget(chart, area);
}

fn parts(area: Rect) -> [Rect; 3] {
    Layout::vertical([Constraint::Length(2), Constraint::Fill(1), Constraint::Length(1)]).areas(area)
}

fn header(frame: &mut Frame<'_>, area: Rect, shown: &Shown<'_>, subject: &str) {
    let lost = if shown.lost > 0 { format!("   {} lost", count(shown.lost)) } else { String::new() };
    let paused = if shown.paused { "   paused" } else { "" };
    let rate = format!("   {} samples/s", count(shown.samples_per_s as u64));
    let line = Line::from(vec![
        Span::styled("tcpprobe live  ", BOLD),
        Span::raw(shown.what.to_owned()),
        Span::styled(rate, DIM),
        Span::styled(lost, shown.style(Color::Red)),
        Span::styled(paused, BOLD),
    ]);
    frame.render_widget(Paragraph::new(vec![line, Line::from(subject.to_owned())]), area);
}

fn footer(frame: &mut Frame<'_>, area: Rect, keys: &'static str) {
    frame.render_widget(Paragraph::new(keys).style(DIM), area);
}

fn counted(flows: usize) -> String {
    crate::words::counted(flows as u64, "flow")
}

fn dash() -> String {
    "-".to_owned()
}

fn plain(value: Option<i64>) -> String {
    value.map_or_else(dash, |n| count(n.unsigned_abs()))
}

/// The name of a congestion control comes from the kernel, where a module may call itself anything.
fn printable(text: &str) -> String {
    crate::sql::printable(text)
}

fn milliseconds(us: Option<i64>) -> String {
    us.map_or_else(dash, |us| format!("{:.*} ms", if us < 10_000 { 2 } else { 1 }, us as f64 / 1e3))
}

fn bytes(bytes: f64) -> String {
    scaled(bytes, ["B", "kB", "MB", "GB"])
}

fn rate(bits_per_s: f64) -> String {
    if bits_per_s == 0.0 { dash() } else { scaled(bits_per_s, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"]) }
}

/// Three digits, in the unit that they fit.
fn scaled(value: f64, units: [&str; 4]) -> String {
    let mut value = value;
    let mut rest = &units[..];
    while let [_, larger @ ..] = rest
        && value >= 999.5
        && !larger.is_empty()
    {
        value /= 1000.0;
        rest = larger;
    }
    let unit = rest.first().copied().unwrap_or_default();
    let is_smallest = rest.len() == units.len();
    let digits = if is_smallest || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
}

fn state(flow: &Watched) -> String {
    const STATES: [&str; 5] = ["Open", "Disorder", "CWR", "Recovery", "Loss"];
    if flow.has_ended() {
        return "closed".to_owned();
    }
    let state = flow.field(const { index("ca_state") }).and_then(|state| usize::try_from(state).ok());
    state.and_then(|state| STATES.get(state)).map_or_else(dash, |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (value, expected) in [
            (0.0, "0 B"),
            (999.0, "999 B"),
            (1_000.0, "1.00 kB"),
            (14_480.0, "14.5 kB"),
            (999_499.0, "999 kB"),
            (999_600.0, "1.00 MB"),
            (5.0e12, "5000 GB"),
        ] {
            assert_eq!(bytes(value), expected);
        }
        assert_eq!(rate(0.0), "-");
        assert_eq!(rate(19_640_000.0), "19.6 Mbit/s");
        assert_eq!(milliseconds(Some(250)), "0.25 ms");
        assert_eq!(milliseconds(None), "-");
    }
}
