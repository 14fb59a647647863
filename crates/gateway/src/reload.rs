//! When the configuration is read again: on SIGHUP, and when one of its files has changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::live::Live;

/// Editors and deployments write in several steps; the last one counts.
const SETTLE: Duration = Duration::from_millis(200);

/// Reloads whenever that is due, for as long as the gateway runs. It watches from the call on, and not only
/// from when the future is first polled.
pub(crate) fn watch(live: Arc<Live>) -> impl Future<Output = ()> {
    let (changed, changes) = channel(1);
    let hang_ups = hang_ups();
    let watcher = watch_folders(&live.files(), &changed);
    let seen = digest(&live.files());
    follow(live, Watch { changed, changes, hang_ups, watcher, seen })
}

struct Watch {
    changed: Sender<()>,
    changes: Receiver<()>,
    hang_ups: Receiver<()>,
    /// It watches until it is dropped.
    watcher: Option<RecommendedWatcher>,
    /// What was in the files when they were last looked at.
    seen: [u8; 32],
}

async fn follow(live: Arc<Live>, mut watch: Watch) {
    loop {
        let asked = tokio::select! {
            Some(()) = watch.hang_ups.recv() => true,
            Some(()) = watch.changes.recv() => {
                tokio::time::sleep(SETTLE).await;
                // What came meanwhile is looked at now.
                while watch.changes.try_recv().is_ok() {}
                false
            }
            else => return,
        };
        // Not by times of files, which tell little: by what is in them.
        let files = live.files();
        let now = digest(&files);
        if !asked && now == watch.seen {
            continue;
        }
        // From before the files are read, so that what changes after that is another change.
        watch.seen = now;
        let reloading = live.clone();
        // It reads files, and may make tables.
        let reloaded = tokio::task::spawn_blocking(move || reloading.reload().is_ok()).await;
        if reloaded.unwrap_or(false) && live.files() != files {
            // Others belong to it now. The former are watched until these are; and since they may have
            // changed before that, they are looked at once more.
            watch.watcher = watch_folders(&live.files(), &watch.changed).or(watch.watcher.take());
            let _ = watch.changed.try_send(());
        }
    }
}

/// Tells `changed` of all that happens in the folders of these files. Folders, since editors put new files
/// in the place of old ones.
fn watch_folders(files: &[PathBuf], changed: &Sender<()>) -> Option<RecommendedWatcher> {
    let folder = |file: &PathBuf| match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let folders: BTreeSet<_> = files.iter().map(folder).collect();
    if folders.is_empty() {
        return None;
    }
    let changed = changed.clone();
    // One note that there is something to look at is enough.
    let note = move |_: notify::Result<notify::Event>| {
        let _ = changed.try_send(());
    };
    let watched = notify::recommended_watcher(note).and_then(|mut watcher| {
        for folder in &folders {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    });
    match watched {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!("changes of the configuration are not seen: {error}; send SIGHUP");
            None
        }
    }
}

/// What is in these files.
fn digest(files: &[PathBuf]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for file in files {
        // One that is not there is another one than an empty one.
        match std::fs::read(file) {
            Ok(bytes) => digest.update(Sha256::digest(&bytes)),
            Err(_) => digest.update([0]),
        }
    }
    digest.finalize().into()
}

/// Each SIGHUP.
fn hang_ups() -> Receiver<()> {
    let (hung_up, hang_ups) = channel(1);
    use tokio::signal::unix::{SignalKind, signal};
    if let Ok(mut signals) = signal(SignalKind::hangup()) {
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                let _ = hung_up.try_send(());
            }
        });
    }
    hang_ups
}
