//! How a shared file comes to be: whole, or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::SharedFileError;
use super::header;

/// Makes a file without tables, unless there is one by then.
///
/// It is built under another name and then linked to its own, which fails where a file is. So nobody
/// opens half a file, and of several processes one makes it.
pub(super) fn create(path: &Path) -> Result<(), SharedFileError> {
    let failed = |doing| move |error: io::Error| SharedFileError::io(path, doing, &error);
    let mut secret = [0; 4];
    for word in &mut secret {
        *word = getrandom::u64().map_err(|error| failed("make a secret for")(error.into()))?;
    }
    let aside = Aside::beside(path);
    let mut file = private().open(&aside.0).map_err(failed("create"))?;
    allocate(&file, 0, header::BYTES).map_err(failed("make room for"))?;
    file.write_all(&header::fresh(secret)).map_err(failed("write"))?;
    file.sync_all().map_err(failed("write"))?;
    match fs::hard_link(&aside.0, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("create")(error)),
        _ => Ok(()),
    }
}

/// Gives a part of the file blocks on the disk, of zeros, so that no write to a map finds it full.
pub(super) fn allocate(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), offset, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP) => {}
        allocated => return Ok(allocated?),
    }
    // Elsewhere, blocks come with what is written.
    let zeros = vec![0; 1 << 16];
    let mut at = offset;
    while at < offset + bytes {
        let length = zeros.len().min((offset + bytes - at) as usize);
        std::os::unix::fs::FileExt::write_all_at(file, &zeros[..length], at)?;
        at += length as u64;
    }
    file.sync_data()
}

/// A new file that is its owner's alone.
fn private() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    options
}

/// A name that is taken away again.
struct Aside(PathBuf);

impl Aside {
    fn beside(path: &Path) -> Self {
        // Two processes, or threads, that make one file at once.
        let unique = getrandom::u64().unwrap_or(u64::from(std::process::id()));
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{unique:016x}.new"));
        Self(path.with_file_name(name))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // it may never have been there
    }
}
