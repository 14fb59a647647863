//! Files that are written as a whole.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a file as a whole, with this mode where it is new: who reads it sees the old one or the new one, after
/// a power failure too.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".new-{}", std::process::id()));
    let beside = Path::new(&beside);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(beside)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.and_then(|()| fs::rename(beside, path)).inspect_err(|_| {
        let _ = fs::remove_file(beside);
    })
}
