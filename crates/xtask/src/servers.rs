//! What tests start: Redis or Valkey, and Chromium.

use std::path::Path;

use crate::run::{Failure, run, succeeds};

/// Packages of Debian and its kin that have one.
const PACKAGES: [&str; 2] = ["redis-server", "valkey-server"];

/// Installs a browser for the page of the gateway, if there is none and that can be done. The tests say what
/// they lack, and fail for it in CI only.
pub(crate) fn browser() {
    let is_there = ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .any(|name| succeeds(&format!("{name} --version")));
    if is_there || std::env::var_os("TIDEGATE_TEST_BROWSER").is_some() {
        return;
    }
    let installed = is_root()
        && succeeds("apt-get update -qq")
        && succeeds("apt-get install -y -qq --no-install-recommends chromium");
    if !installed {
        println!(
            "the gateway's page is tested in Chromium; install it, such as with `apt-get install chromium`"
        );
    }
}

/// Installs a server, if there is none.
pub(crate) fn ready() -> Result<(), Failure> {
    if std::env::var_os("TIDEGATE_REDIS_SERVER").is_some() || succeeds("redis-server --version") {
        return Ok(());
    }
    let explain = "tests start a real Redis; install one, such as with `apt-get install redis-server`, \
                   or give the path of a redis-server or valkey-server in TIDEGATE_REDIS_SERVER";
    if !is_root() || !succeeds("apt-get --version") {
        return Err(Failure::new(explain));
    }
    run("apt-get update -qq")?;
    let is_installed = |package: &str| {
        run(&format!("apt-get install -y -qq --no-install-recommends {package}")).is_ok()
    };
    match PACKAGES.iter().find(|package| is_installed(package)) {
        Some(_) => Ok(()),
        None => Err(Failure::new(explain)),
    }
}

fn is_root() -> bool {
    // The owner of a process's own folder is its user.
    use std::os::unix::fs::MetadataExt;
    Path::new("/proc/self").metadata().is_ok_and(|folder| folder.uid() == 0)
}
