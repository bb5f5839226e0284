//! The band at the top of the page: what the audit has found, and whether the generator was fit.
//!
//! One word, shape and colour, as the gateway's live page has them: a reader sees from afar whether a
//! reading was lost. A run that nobody has audited says so.

use super::plot::escape;
use super::{Audited, Report, Verdict};

/// The word of a band, the class of its colour, and the path of its shape.
struct Word {
    text: &'static str,
    class: &'static str,
    shape: &'static str,
}

const GOOD: Word = Word {
    text: "Good",
    class: "good",
    shape: "M32 5a27 27 0 1 0 .1 0zM19 33l9 10 18-20",
};

const NOT_GOOD: Word = Word {
    text: "Not good",
    class: "bad",
    shape: "M20 4h24l16 16v24L44 60H20L4 44V20zM22 22l20 20M42 22L22 42",
};

const NOT_AUDITED: Word = Word {
    text: "Not audited",
    class: "none",
    shape: "M32 5a27 27 0 1 0 .1 0zM24 25a8 8 0 1 1 8 9v4M32 46v2",
};

const NOT_TO_BE_TRUSTED: Word = Word {
    text: "Not to be trusted",
    class: "warn",
    shape: "M32 6l28 51H4zM32 25v14M32 47v2",
};

/// The band, with the page's title.
pub(super) fn band(report: &Report, title: &str) -> String {
    let Word { text, class, shape } = word(report);
    let mut lines = vec![of_audit(report.audit.as_ref())];
    lines.extend(examples(report.audit.as_ref()));
    lines.push(of_generator(&report.verdict));
    let lines: Vec<String> = lines
        .iter()
        .map(|line| format!("<li>{line}</li>"))
        .collect();
    format!(
        "<header class=\"band {class}\"><svg viewBox=\"0 0 64 64\" aria-hidden=\"true\"><path d=\"{shape}\"/></svg>\
         <div><h1>{title}</h1><p class=\"word\">{text}</p></div><ul>{}</ul></header>\n",
        lines.concat()
    )
}

/// Judges the run in a word; a lost reading outweighs any speed.
fn word(report: &Report) -> Word {
    match &report.audit {
        Some(audited) if !audited.good => NOT_GOOD,
        _ if !report.verdict.fit => NOT_TO_BE_TRUSTED,
        Some(_) => GOOD,
        None => NOT_AUDITED,
    }
}

fn of_audit(audited: Option<&Audited>) -> String {
    let Some(audited) = audited else {
        return "<b>Not audited</b>: nobody has compared the sink with what was sent.".into();
    };
    let Audited {
        safe,
        unknown,
        records,
        ..
    } = audited;
    if audited.good {
        return format!(
            "<b>Audit</b>: all {safe} readings that were answered 204 are among the {records} records of the sink, \
             once, whole and in order; {unknown} had an unknown outcome."
        );
    }
    let mut faults = Vec::new();
    for (fault, count) in &audited.faults {
        if *count > 0 {
            faults.push(format!("{count} {}", escape(fault)));
        }
    }
    format!(
        "<b>Audit</b>: {} of {safe} readings that were answered 204, in {records} records.",
        faults.join(", ")
    )
}

fn examples(audited: Option<&Audited>) -> Vec<String> {
    let mut examples = Vec::new();
    for example in audited.into_iter().flat_map(|audited| &audited.examples) {
        examples.push(format!(
            "{}: {}",
            escape(&example.fault),
            escape(&example.what)
        ));
    }
    examples
}

fn of_generator(verdict: &Verdict) -> String {
    let lines = verdict.reasons.iter().chain(&verdict.notes);
    let lines: Vec<String> = lines.map(|line| format!(" · {}", escape(line))).collect();
    let says = if verdict.fit {
        "<b>Generator</b>: fit, these figures are the server's"
    } else {
        "<b>Generator</b>: not fit, these figures are not to be trusted"
    };
    format!("{says}{}", lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Example;

    fn audited(good: bool) -> Option<Audited> {
        Some(Audited {
            good,
            safe: 7,
            faults: [("lost".to_owned(), u64::from(!good))].into(),
            examples: vec![Example {
                fault: "lost".into(),
                what: "load-000001 <#3>".into(),
            }],
            ..Audited::default()
        })
    }

    #[test]
    fn what_was_lost_is_said_first() {
        let mut report = Report::default();
        report.verdict.fit = true;
        for (audit, fit, says) in [
            (None, true, "Not audited"),
            (audited(true), true, "Good"),
            (audited(true), false, "Not to be trusted"),
            (audited(false), false, "Not good"),
        ] {
            report.audit = audit;
            report.verdict.fit = fit;
            let band = band(&report, "a run");
            let word = format!("<p class=\"word\">{says}</p>");
            assert!(band.contains(&word), "{says}: {band}");
        }
        report.audit = audited(false);
        let band = band(&report, "a run");
        assert!(band.contains("1 lost of 7 readings") && band.contains("load-000001 &lt;#3&gt;"));
    }
}
