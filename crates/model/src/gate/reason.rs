//! The sentence that explains a decision.

use super::{GateDecision, GateMethod, GateRule, SloDecision, Verdict};

/// Why the verdict is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Empty,
    NothingYet,
    Pending,
    /// Exact: the stage will be inconclusive at best.
    CannotPass,
    /// Even if all the rest verify.
    Certain,
    /// By the rule's own method.
    Shown,
    /// Exact: early, by evidence that holds at every look.
    Evidence,
    Truncated,
    NotShown,
    /// The rule's rates make no sequential test.
    NoTest,
    SampleSmall,
    Soaking,
    SloOver(usize),
    SloUnmeasured(usize),
}

pub(super) fn sentence(rule: &GateRule, decision: &GateDecision, why: &Why) -> String {
    let GateDecision {
        devices,
        failed,
        pending,
        sample,
        ..
    } = decision;
    let limit = percent(u64::from(decision.limit_ppm) * 1_000);
    let counted = counted(decision);
    match why {
        Why::Empty => "the stage has no devices".to_owned(),
        Why::NothingYet => format!("none of {devices} devices has answered"),
        Why::Pending => format!("{counted}; {pending} are still to answer{}", so_far(decision)),
        Why::CannotPass => format!(
            "{counted}; {pending} are still to answer, but with {failed} failed, {devices} devices cannot show a rate below {limit}"
        ),
        Why::Certain if decision.method == GateMethod::Point => {
            format!(
                "{counted}; {failed} of {devices} is not below {limit}, even if the {pending} that are still to answer verify"
            )
        }
        Why::Certain => {
            let confidence = percent(u64::from(decision.confidence_ppm) * 1_000);
            format!(
                "{counted}; the rate is above {limit} at {confidence} even if the {pending} that are still to answer verify"
            )
        }
        Why::Shown | Why::Evidence | Why::Truncated | Why::NotShown => {
            format!("{counted}; {}", shown(decision, why))
        }
        Why::NoTest => "the rule's rates and errors make no sequential test".to_owned(),
        Why::SampleSmall => format!(
            "{counted}; the rule wants at least {} answers, there are {sample}",
            rule.min_sample
        ),
        Why::Soaking => format!(
            "{counted}; the stage has been open {} of {} seconds",
            decision.soaked_seconds, rule.min_soak_seconds
        ),
        Why::SloOver(index) => decision.slos.get(*index).map(slo_over).unwrap_or_default(),
        Why::SloUnmeasured(index) => {
            let name = decision
                .slos
                .get(*index)
                .map_or("an objective", |slo| slo.name.as_str());
            format!("{counted}; nothing was measured for {name}")
        }
    }
}

fn counted(decision: &GateDecision) -> String {
    let GateDecision {
        failed,
        silent,
        sample,
        ..
    } = decision;
    let ratio = decision.ratio_ppb.map(percent).unwrap_or_default();
    let silent = if *silent > 0 {
        format!(", {silent} of them silent")
    } else {
        String::new()
    };
    format!("{failed} of {sample} devices failed{silent} ({ratio})")
}

/// Where a test that looks at every report stands.
fn so_far(decision: &GateDecision) -> String {
    match decision.method {
        GateMethod::Point | GateMethod::Exact => String::new(),
        GateMethod::Sequential | GateMethod::Anytime => format!(", {}", shown(decision, &Why::NotShown)),
    }
}

fn shown(decision: &GateDecision, why: &Why) -> String {
    let limit = percent(u64::from(decision.limit_ppm) * 1_000);
    let confidence = percent(u64::from(decision.confidence_ppm) * 1_000);
    let (lower, upper) = (percent(decision.lower_ppb), percent(decision.upper_ppb));
    if *why == Why::Evidence {
        let (found, needed) = decision
            .evidence
            .map_or((0, 0), |numbers| (numbers.above_micro, numbers.needed_micro));
        return format!(
            "evidence that holds at every look puts the rate above {limit} at {confidence} (log evidence {} of {})",
            millionths(found),
            millionths(needed)
        );
    }
    match (decision.method, decision.sequential) {
        (GateMethod::Point, _) => format!("the rate must stay below {limit}"),
        (GateMethod::Sequential, Some(test)) => {
            let end = if *why == Why::Truncated {
                format!(
                    ", and its sign decides from {} devices on",
                    test.truncation_sample
                )
            } else {
                String::new()
            };
            format!(
                "the log-likelihood ratio is {}, the stage passes at {} and fails at {}{end}",
                millionths(test.log_likelihood_micro),
                millionths(test.pass_at_micro),
                millionths(test.fail_at_micro)
            )
        }
        (GateMethod::Exact | GateMethod::Anytime | GateMethod::Sequential, _) => {
            let bound = match decision.verdict {
                Verdict::Fail => format!("above {lower}"),
                Verdict::Pass => format!("below {upper}"),
                Verdict::Wait | Verdict::Inconclusive => format!("above {lower}, and below {upper}"),
            };
            format!("at {confidence} the rate is {bound}, the limit is {limit}")
        }
    }
}

fn slo_over(slo: &SloDecision) -> String {
    let limit = percent(u64::from(slo.limit_ppm) * 1_000);
    format!("{}: {} of {}, the limit is {limit}", slo.name, slo.count, slo.of)
}

/// Parts per billion as a percentage with at most four decimals.
fn percent(ppb: u64) -> String {
    let tenthousandths = (ppb + 500) / 1_000;
    let text = format!("{}.{:04}", tenthousandths / 10_000, tenthousandths % 10_000);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Millionths with three decimals.
fn millionths(value: i64) -> String {
    let thousandths = (value.unsigned_abs() + 500) / 1_000;
    let sign = if value < 0 { "−" } else { "" };
    format!("{sign}{}.{:03}", thousandths / 1_000, thousandths % 1_000)
}
