//! The servers that tests start: Redis or Valkey.

use std::path::Path;

use crate::run::{Failure, run, succeeds};

/// Packages of Debian and its kin that have one.
const PACKAGES: [&str; 2] = ["redis-server", "valkey-server"];

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
