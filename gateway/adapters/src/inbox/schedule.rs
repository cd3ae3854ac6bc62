//! When runs start by themselves. The schedule is off until an operator switches it on, after a clean dry run on what decides now; any
//! change of that switches it off again.

use super::run::{Asked, NotRun, Runner};
use croner::Cron;
use jiff::Zoned;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use warden_core::proposal::Mode;

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A cron expression: five fields, or six with seconds, in UTC.
pub fn cron(text: &str) -> Result<Cron, String> {
    Cron::from_str(text).map_err(|e| format!("`{}`: {e}", text.escape_debug()))
}

/// The next time after `from`; nothing when there is none.
pub fn next(cron: &Cron, from: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let from: Zoned = from.to_zoned(jiff::tz::TimeZone::UTC);
    cron.find_next_occurrence(&from, false).ok().map(|next| next.timestamp())
}

/// Starts runs until `stopped`. What was missed while a run was on, or while the gateway was down, is not made up for.
pub fn start(runner: Arc<Runner>, mut stopped: watch::Receiver<bool>) {
    tokio::spawn(async move {
        let mut due: Option<(String, jiff::Timestamp)> = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = stopped.wait_for(|stop| *stop) => return,
            }
            let Some(schedule) = runner.schedule_of_now().await else {
                due = None;
                continue;
            };
            let now = crate::world::now();
            let Ok(cron) = cron(&schedule.cron) else { continue };
            let at = match &due {
                Some((text, at)) if *text == schedule.cron => *at,
                _ => {
                    let Some(at) = next(&cron, now) else { continue };
                    due = Some((schedule.cron.clone(), at));
                    at
                }
            };
            if now < at {
                continue;
            }
            // Counted from now, however many were missed.
            due = next(&cron, now).map(|at| (schedule.cron.clone(), at));
            let asked = Asked { mode: Mode::Scheduled, brain: None, operator: None, accept_brief: None };
            match runner.run(asked).await {
                Ok(report) => {
                    tracing::info!(run = report.run, messages = report.summary.messages, "a scheduled run is over")
                }
                Err(NotRun::AlreadyRunning) => tracing::info!("a scheduled run was left out: one is on"),
                Err(e) => tracing::error!(error = %e, "a scheduled run did not begin"),
            }
        }
    });
}
