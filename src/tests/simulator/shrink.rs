//! Shrinking: cuts a life that fails down to the parts that it needs to fail, and prints it.

use super::plan::Plan;
use super::{Lived, live};

/// Lives that are tried at most.
const TRIES_MAX: usize = 400;

/// Prints the least life that fails as this seed does, with its story.
pub(crate) fn print(seed: u64) {
    let (plan, lived) = shrink(Plan::draw(seed));
    println!("seed {seed}, cut down: {plan:#?}");
    for line in &lived.story {
        println!("{line}");
    }
    println!("seed {seed}: {:#?}", lived.faults);
}

fn kind(lived: &Lived) -> Option<String> {
    let first = lived.faults.first()?;
    Some(first.split(':').next().unwrap_or_default().to_owned())
}

fn shrink(mut plan: Plan) -> (Plan, Lived) {
    let mut lived = live(&plan);
    let wanted = kind(&lived);
    let mut tries = 0;
    loop {
        let mut has_shrunk = false;
        for smaller in smaller(&plan) {
            tries += 1;
            if tries > TRIES_MAX {
                return (plan, lived);
            }
            let tried = live(&smaller);
            if kind(&tried) == wanted {
                (plan, lived, has_shrunk) = (smaller, tried, true);
                break;
            }
        }
        if !has_shrunk {
            return (plan, lived);
        }
    }
}

/// Plans that have one thing less.
fn smaller(plan: &Plan) -> Vec<Plan> {
    let mut plans = Vec::new();
    let mut add = |change: &dyn Fn(&mut Plan)| {
        let mut smaller = plan.clone();
        change(&mut smaller);
        plans.push(smaller);
    };
    for at in 0..plan.devices.len() {
        add(&|plan| {
            plan.devices.remove(at);
        });
    }
    for at in 0..plan.ends.len() {
        add(&|plan| {
            plan.ends.remove(at);
        });
    }
    for at in 0..plan.faults.len() {
        add(&|plan| {
            plan.faults.remove(at);
        });
    }
    for (at, device) in plan.devices.iter().enumerate() {
        if device.readings > 1 {
            add(&|plan| plan.devices[at].readings /= 2);
            add(&|plan| plan.devices[at].readings -= 1);
        }
        if device.reconnects {
            add(&|plan| plan.devices[at].reconnects = false);
        }
        if device.resends {
            add(&|plan| plan.devices[at].resends = false);
        }
    }
    if plan.put_off_percent > 0 {
        add(&|plan| plan.put_off_percent = 0);
    }
    if plan.shape.workers > 1 {
        add(&|plan| plan.shape.workers = 1);
    }
    plans
}
