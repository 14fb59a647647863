//! [`Live`]: the gateway as it is configured now, and how it takes over another configuration.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tidegate::policy::Policy;

use crate::admin::{Blocks, Names};
use crate::cli::Origin;
use crate::config::{Config, ConfigError};
use crate::gateway::Gateway;
use crate::metrics::METRICS;
use crate::tasks::Tasks;

/// The gateway as it is configured now. A reload swaps it as a whole: each call sees one configuration
/// from its beginning to its end.
pub(crate) struct Live {
    current: ArcSwap<Gateway>,
    origin: Origin,
    /// What came of reloads; held for as long as one takes, so that they come one after the other.
    reloads: Mutex<Reloads>,
    draining: AtomicBool,
    blocks: Arc<Blocks>,
    names: Arc<Names>,
    tasks: Tasks,
}

/// What came of reloads so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reloads {
    /// When the configuration that runs was taken over; `None` since the start.
    pub(crate) taken_over: Option<SystemTime>,
    /// Why the latest attempt failed, if it did, and when.
    pub(crate) failed: Option<(SystemTime, String)>,
    /// Policies whose calls may still be under way, or just begin.
    retired: Vec<Policy>,
}

impl Live {
    /// The gateway of a configuration; `Err` when whom operators block cannot be read.
    pub(crate) fn new(config: Config, origin: Origin) -> Result<Self, String> {
        let blocks = Arc::new(Blocks::beside(origin.state())?);
        let names = Arc::new(Names::default());
        let tasks = Tasks::default();
        let gateway = Gateway::new(config, None).operated(blocks.clone(), names.clone());
        let gateway = gateway.among(tasks.clone());
        names.note_users(gateway.policy(), gateway.identity().users());
        Ok(Self {
            current: ArcSwap::from_pointee(gateway),
            origin,
            reloads: Mutex::default(),
            draining: AtomicBool::new(false),
            blocks,
            names,
            tasks,
        })
    }

    /// The gateway for a call that begins now.
    pub(crate) fn gateway(&self) -> Arc<Gateway> {
        self.current.load_full()
    }

    pub(crate) fn reloads(&self) -> Reloads {
        self.lock().clone()
    }

    /// The files that the configuration was read from; none, when it is the built-in one.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let Some(file) = &self.origin.file else { return Vec::new() };
        let gateway = self.gateway();
        std::iter::once(file.clone()).chain(gateway.identity().files().iter().cloned()).collect()
    }

    /// Reads the configuration again and takes it over. When anything is wrong with it, all stays as it is.
    pub(crate) fn reload(&self) -> Result<(), ConfigError> {
        let mut reloads = self.lock();
        let now = SystemTime::now();
        let former = self.gateway();
        match self.origin.config(Some(&former)) {
            Ok(config) => {
                let next = Gateway::new(config, Some(&former));
                let next = next.operated(self.blocks.clone(), self.names.clone());
                let next = next.among(self.tasks.clone());
                self.names.note_users(next.policy(), next.identity().users());
                tracing::info!("took over the configuration: {}", changes(&former, &next));
                warn_of_restart(&former, &next);
                reloads.retired.push(former.policy().clone());
                self.current.store(Arc::new(next));
                reloads.taken_over = Some(now);
                reloads.failed = None;
                METRICS.reloaded(true);
                Ok(())
            }
            Err(error) => {
                tracing::error!(
                    "the former configuration stays, since the new one is wrong: {error}"
                );
                reloads.failed = Some((now, error.to_string()));
                METRICS.reloaded(false);
                Err(error)
            }
        }
    }

    /// Keeps what is reserved for calls that are under way here, and gives back what gateways that have
    /// died had reserved; tells how many of the latter there were. For a timer.
    pub(crate) fn renew_and_return_expired(&self) -> usize {
        let mut reloads = self.lock();
        // Calls that began under a former configuration end under it.
        let in_use = |policy: &Policy| {
            policy.renew_reservations();
            policy.is_in_use()
        };
        reloads.retired.retain(in_use);
        let gateway = self.gateway();
        gateway.policy().renew_reservations();
        gateway.policy().return_expired()
    }

    /// What connections do.
    pub(crate) const fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Cuts off what is under way still, which settles it as if clients had gone; and waits until what calls
    /// have used is booked, where that takes a server, under former configurations too: before the process ends.
    pub(crate) async fn finish(&self) {
        if !self.tasks.cut_off().await {
            tracing::warn!(
                "some calls could not be cut off; what they have reserved stays charged"
            );
        }
        let mut policies = std::mem::take(&mut self.lock().retired);
        policies.push(self.gateway().policy().clone());
        for policy in policies {
            policy.finish().await;
        }
    }

    /// Says from now on that no more calls are taken.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed); // a lone value
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed) // as above
    }

    pub(crate) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    fn lock(&self) -> MutexGuard<'_, Reloads> {
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is other than before, in a line.
fn changes(former: &Gateway, next: &Gateway) -> String {
    let limits = |gateway: &Gateway| -> Vec<(String, String)> {
        let rules = gateway.policy().rules().iter();
        rules.map(|rule| (rule.name().to_owned(), rule.limit().to_string())).collect()
    };
    let (before, after) = (limits(former), limits(next));
    let names = |list: &[(String, String)], other: &[(String, String)]| -> Vec<String> {
        list.iter().filter(|rule| !other.contains(rule)).map(|(name, _)| name.clone()).collect()
    };
    let (gone, fresh) = (names(&before, &after), names(&after, &before));
    let mut parts = vec![format!("{} rules go on", after.len() - fresh.len())];
    if !fresh.is_empty() {
        parts.push(format!("{} begin fresh", fresh.join(", ")));
    }
    if !gone.is_empty() {
        parts.push(format!("{} end", gone.join(", ")));
    }
    parts.push(format!("known by {}", next.identity().in_words()));
    parts.join("; ")
}

fn warn_of_restart(former: &Gateway, next: &Gateway) {
    for field in former.fixed().differences(next.fixed()) {
        tracing::warn!("`{field}` has changed, which takes a restart");
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tidegate::Reservation;
    use tidegate::policy::{Call, Held, Verdict};

    use super::*;
    use crate::cli::Cli;

    fn live() -> Live {
        let origin = Cli::try_parse_from(["tidegate", "--no-state"]).unwrap().origin().unwrap();
        Live::new(origin.config(None).unwrap(), origin).unwrap()
    }

    fn reserve(gateway: &Gateway) -> Reservation<Held> {
        let call = Call::new("POST", "/v1/chat/completions").by_user("alice").with_llm_tokens(5);
        let call = call.from_ip([192, 0, 2, 7].into());
        match gateway.policy().decide(&call) {
            Verdict::Allow(grant) => grant.into_reservation().unwrap(),
            Verdict::Deny(refusal) => panic!("{refusal:?}"),
        }
    }

    #[tokio::test]
    async fn a_former_policy_is_kept_for_as_long_as_a_call_has_it() {
        let live = live();
        let retired = || live.reloads().retired.len();
        let begun = live.gateway();
        live.reload().unwrap();
        live.renew_and_return_expired();
        assert_eq!(retired(), 1, "that call may yet reserve");
        let reserved = reserve(&begun);
        drop(begun);
        live.renew_and_return_expired();
        assert_eq!(retired(), 1, "what it reserved is renewed");
        let other = reserve(&live.gateway());
        reserved.cancel();
        live.renew_and_return_expired();
        assert_eq!(retired(), 0, "other calls do not need it");
        other.cancel();
    }
}
