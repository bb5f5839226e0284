//! Shell commands that run at times of a run: to pause a broker, to kill a gateway, to bring it
//! back.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::cli::Hook;
use crate::report::Event;

/// The time that commands have which still run when the run is over.
const GRACE: Duration = Duration::from_secs(10);

/// The commands of a run: due, running, told.
pub(crate) struct Hooks {
    /// The commands that have not been run, the latest first.
    due: Vec<Hook>,
    running: Vec<Child>,
    events: Vec<Event>,
}

impl Hooks {
    pub(crate) fn new(mut hooks: Vec<Hook>) -> Self {
        hooks.sort_by_key(|hook| std::cmp::Reverse(hook.at));
        Self {
            due: hooks,
            running: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Starts the commands whose time has come; they run beside the fleet.
    pub(crate) fn run_due(&mut self, running: Duration) {
        while let Some(hook) = self.due.pop_if(|hook| hook.at <= running) {
            let started = Command::new("sh").args(["-c", &hook.command]).spawn();
            self.events.push(Event {
                t: hook.at.as_secs_f64(),
                what: hook.command,
                error: started.as_ref().err().map(ToString::to_string),
            });
            self.running.extend(started.ok());
        }
    }

    /// Waits a while for commands that still run, kills them then, and says what was run.
    pub(crate) fn end(mut self) -> Vec<Event> {
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline && self.running.iter_mut().any(is_running) {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.events
    }
}

fn is_running(child: &mut Child) -> bool {
    matches!(child.try_wait(), Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_run_once_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("said");
        let hook = |text: &str| {
            format!("{text}=echo {text} >> {}", file.display())
                .parse()
                .unwrap()
        };
        let mut hooks = Hooks::new(vec![hook("2s"), hook("1s"), hook("9s")]);
        hooks.run_due(Duration::from_millis(1500));
        hooks.running[0].wait().unwrap();
        hooks.run_due(Duration::from_millis(2500));
        assert_eq!(hooks.end().len(), 2);
        assert_eq!(std::fs::read_to_string(file).unwrap(), "1s\n2s\n");
    }
}
