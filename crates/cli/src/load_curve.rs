//! `mainstay load --curve`: goodput and latency from a part of the capacity to a multiple of it.
//!
//! The capacity is measured first, by connections that send as fast as they are answered. Each step
//! is an open loop, so a server that falls behind is not spared what it held up.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use crate::failure::{FOUND_FAULT, Failure};
use crate::load::{Arguments, Pace, Report, measure, queries};

/// Connections that find the capacity: enough to keep every core of a server busy, few enough that
/// none of them is turned away.
const CAPACITY_CONNECTIONS: usize = 16;

/// One step of the curve.
#[derive(Serialize)]
struct Step {
    multiple: f64,
    offered_per_s: f64,
    goodput_per_s: f64,
    /// Of the answers, those in which every method answered in full.
    complete_percent: f64,
    p50_ms: f64,
    p99_ms: f64,
    shed_percent: f64,
    failed: u64,
    resident_mib: f64,
}

/// Exit code 0 when every request was answered or deliberately rejected, 1 when one failed.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let queries = queries(&arguments.queries)?;
    if arguments.curve.iter().any(|multiple| !(multiple.is_finite() && *multiple > 0.0)) {
        return Err(Failure::usage("--curve takes multiples above 0, such as 0.5,1,2,5"));
    }
    let connections = arguments.connections.min(CAPACITY_CONNECTIONS);
    let found = measure(arguments, &queries, Pace::AsAnswered, connections)?;
    let capacity = found.ok as f64 / found.seconds.max(1e-9);
    if found.ok == 0 {
        return Err(Failure::new("no search was answered, so there is no capacity to multiply"));
    }
    if !arguments.json {
        println!("capacity {capacity:.1} searches/s");
        println!(
            "{:>8} {:>10} {:>10} {:>10} {:>9} {:>9} {:>7} {:>7} {:>9}",
            "multiple",
            "offered/s",
            "goodput/s",
            "complete %",
            "p50 ms",
            "p99 ms",
            "shed %",
            "failed",
            "RSS MiB"
        );
    }
    let mut steps = Vec::new();
    for multiple in &arguments.curve {
        let rate = capacity * multiple;
        let report = measure(arguments, &queries, Pace::Steady(rate), arguments.connections)?;
        let step = step(*multiple, &report, resident_mib(arguments));
        if !arguments.json {
            println!(
                "{:>8.2} {:>10.1} {:>10.1} {:>10.1} {:>9.1} {:>9.1} {:>7.1} {:>7} {:>9.0}",
                step.multiple,
                step.offered_per_s,
                step.goodput_per_s,
                step.complete_percent,
                step.p50_ms,
                step.p99_ms,
                step.shed_percent,
                step.failed,
                step.resident_mib
            );
        }
        for (error, count) in &report.errors {
            eprintln!("{count} failed: {error}");
        }
        steps.push(step);
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&steps).map_err(|e| Failure::new(e.to_string()))?);
    }
    if let Some(path) = &arguments.svg {
        std::fs::write(path, svg(&steps))
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    }
    let failed: u64 = steps.iter().map(|step| step.failed).sum();
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(FOUND_FAULT) })
}

fn step(multiple: f64, report: &Report, resident_mib: f64) -> Step {
    Step {
        multiple,
        offered_per_s: report.rate_per_s,
        goodput_per_s: report.ok as f64 / report.seconds.max(1e-9),
        complete_percent: report.complete as f64 * 100.0 / report.ok.max(1) as f64,
        p50_ms: report.answered_ms.p50,
        p99_ms: report.answered_ms.p99,
        shed_percent: report.rejected as f64 * 100.0 / report.requests.max(1) as f64,
        failed: report.failed,
        resident_mib,
    }
}

/// The server's resident memory as its metrics say; 0 when they do not.
fn resident_mib(arguments: &Arguments) -> f64 {
    // What could not be read was refused before the load began.
    let Ok(agent) = crate::remote::agent(Duration::from_secs(5), &arguments.trust) else {
        return 0.0;
    };
    let answer = agent.get(arguments.address("/metrics")).call();
    let text = answer.ok().and_then(|mut answer| answer.body_mut().read_to_string().ok());
    let text = text.unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("mainstay_process_resident_memory_bytes"));
    let bytes = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    bytes.unwrap_or(0.0) / 1_048_576.0
}

/// Width and height of the drawing, and the room around it.
const SIZE: (f64, f64) = (640.0, 320.0);
const MARGIN: f64 = 48.0;

/// Goodput over what was offered, beside what an unbounded server would do.
fn svg(steps: &[Step]) -> String {
    let offered = steps.iter().map(|step| step.offered_per_s).fold(1.0, f64::max);
    let goodput = steps.iter().map(|step| step.goodput_per_s).fold(1.0, f64::max);
    let latency = steps.iter().map(|step| step.p99_ms).fold(1.0, f64::max);
    let x = |value: f64| MARGIN + value / offered * (SIZE.0 - 2.0 * MARGIN);
    let y = |share: f64| SIZE.1 - MARGIN - share * (SIZE.1 - 2.0 * MARGIN);
    let line = |colour: &str, share: &dyn Fn(&Step) -> f64| {
        let points: Vec<String> = steps
            .iter()
            .map(|step| format!("{:.1},{:.1}", x(step.offered_per_s), y(share(step))))
            .collect();
        format!(
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\n",
            points.join(" ")
        )
    };
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        SIZE.0, SIZE.1
    );
    text += &line("#1f77b4", &|step| step.goodput_per_s / goodput);
    text += &line("#d62728", &|step| step.p99_ms / latency);
    let (bottom, right) = (SIZE.1 - MARGIN, SIZE.0 - MARGIN);
    let _ = writeln!(
        text,
        "<path d=\"M{MARGIN} {MARGIN}V{bottom}H{right}\" fill=\"none\" stroke=\"black\"/>"
    );
    for step in steps {
        let at = x(step.offered_per_s);
        let _ = writeln!(
            text,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}x</text>",
            bottom + 16.0,
            step.multiple
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{MARGIN}\" y=\"20\" fill=\"#1f77b4\">goodput, at most {goodput:.0}/s</text>\n\
         <text x=\"{:.1}\" y=\"20\" fill=\"#d62728\">p99 of the answered, at most {latency:.0} ms</text>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">offered, in multiples of the capacity</text>\n</svg>",
        SIZE.0 / 2.0,
        SIZE.0 / 2.0,
        SIZE.1 - 10.0
    );
    text
}
