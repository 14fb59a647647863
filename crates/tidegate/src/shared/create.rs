//! How a shared file comes to be: whole, or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
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
    write_zeros(file, offset, bytes)
}

/// Where the system gives no blocks for the asking, they come with what is written.
fn write_zeros(mut file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    let zeros = [0; 1 << 13];
    file.seek(SeekFrom::Start(offset))?;
    let mut left = bytes;
    while left > 0 {
        let length = zeros.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(&zeros[..length])?;
        left -= length as u64;
    }
    file.sync_data()?;
    file.rewind()
}

/// A new file that is its owner's alone, where the system knows of owners.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_written_where_the_system_gives_no_blocks() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"begins").unwrap();
        write_zeros(&file, 3, 20_000).unwrap();
        file.write_all(b"B").unwrap();
        file.rewind().unwrap();
        let all = io::read_to_string(file).unwrap();
        assert_eq!(all.len(), 20_003);
        assert!(all.starts_with("Beg\0") && all[3..].bytes().all(|byte| byte == 0));
    }
}
