//! Giving back what is idle, and forgetting keys that are cold.

use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use super::Inner;
use super::account::{Account, Owner};
use super::ask::LimitId;

/// Looks in a row without a call, after which a key is cold.
const COLD_LOOKS: u32 = 8;

/// Looks at all accounts again and again, for as long as the limiter lives.
pub(super) async fn run(limiter: Weak<Inner>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(limiter) = limiter.upgrade() else { return };
        limiter.sweep(false).await;
    }
}

impl Inner {
    pub(super) async fn give_back_all(self: &Arc<Self>) {
        self.sweep(true).await;
    }

    async fn sweep(self: &Arc<Self>, everything: bool) {
        let all: Vec<(Owner, Arc<Account>)> = {
            let accounts = self.accounts.pin();
            accounts.iter().map(|(owner, account)| (owner.clone(), account.clone())).collect()
        };
        let mut returns = tokio::task::JoinSet::new();
        for (owner, account) in all {
            // Who renews it is no concern of ours.
            let Ok(mut renewal) = account.renewal.clone().try_lock_owned() else { continue };
            let was_called = account.was_called();
            renewal.idle_looks = if was_called { 0 } else { renewal.idle_looks + 1 };
            if renewal.idle_looks > COLD_LOOKS || everything {
                renewal.is_closed = true;
                self.accounts.pin().remove(&owner);
            }
            if (!was_called || everything)
                && let Some(lease) = renewal.lease.take()
            {
                let rest = account.leased.take();
                let limit = LimitId(owner.limit);
                returns.spawn(self.clone().return_rest(limit, account.clone(), lease, rest));
            }
        }
        while returns.join_next().await.is_some() {}
    }
}
