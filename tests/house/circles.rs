//! Finds circles: neighbours in one folder of modules that use each other, directly or by way of others.
//!
//! A module may use its parent's types and a parent its children; between siblings the arrows have one direction.

use std::collections::{BTreeMap, BTreeSet};

use crate::scan::Source;

/// Of each module with children: which child names which other one.
type Neighbours = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// One line for each circle, as `sink::kafka: native → reports → native`.
pub fn circles(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for (parent, arrows) in neighbours(sources) {
        for start in arrows.keys() {
            let circle = way_back(&arrows, start);
            // Each circle is told once, from its first name on.
            found.extend(
                circle
                    .filter(|circle| circle.iter().min() == Some(start))
                    .map(|circle| format!("{parent}: {} → {start}", circle.join(" → "))),
            );
        }
    }
    found
}

fn neighbours(sources: &[Source]) -> Neighbours {
    let modules: BTreeSet<&[String]> = sources.iter().map(|source| &source.module[..]).collect();
    let mut neighbours = Neighbours::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        for used in source.paths() {
            let Some(target) = module_of(&modules, &used.path) else {
                continue;
            };
            let shared = common(&source.module, target);
            let (Some(from), Some(to)) = (source.module.get(shared), target.get(shared)) else {
                continue;
            };
            let arrows = neighbours.entry(source.module[..shared].join("::"));
            let from = arrows.or_default().entry(from.clone());
            from.or_default().insert(to.clone());
        }
    }
    neighbours
}

/// The module with the longest name that the path starts with.
fn module_of<'a>(modules: &BTreeSet<&'a [String]>, path: &[String]) -> Option<&'a [String]> {
    (1..=path.len())
        .rev()
        .find_map(|length| modules.get(&path[..length]).copied())
}

fn common(one: &[String], other: &[String]) -> usize {
    let pairs = one.iter().zip(other);
    pairs.take_while(|(left, right)| left == right).count()
}

/// The shortest way from `start` back to it.
fn way_back(arrows: &BTreeMap<String, BTreeSet<String>>, start: &String) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.clone()]];
    let mut met = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let here = &way[way.len() - 1];
            for next in arrows.get(here).into_iter().flatten() {
                if next == start {
                    return Some(way);
                }
                if met.insert(next) {
                    longer.push([way.clone(), vec![next.clone()]].concat());
                }
            }
        }
        ways = longer;
    }
    None
}
