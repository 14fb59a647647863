//! Where the gateway keeps what was spent, so that a restart forgets nothing.

use std::fmt;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcetera::BaseStrategy;
use sha2::{Digest, Sha256};
use tidegate::{SharedFile, SharedFileError};

/// When what a gateway had reserved comes back after it has died. One that lives renews it each second.
const RESERVATION_LIFETIME: Duration = Duration::from_secs(60);

/// Opens the state of the gateway that is configured by `config`: the file that was asked for, or one of
/// its own in the user's folder for state.
pub(crate) fn open(asked: Option<&Path>, config: Option<&Path>) -> Result<SharedFile, StateError> {
    let path = match asked {
        Some(path) => path.to_owned(),
        None => {
            let folder = folder().ok_or(StateError::NoFolder)?;
            // As private as the file.
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(|error| StateError::Folder {
                folder: folder.clone(),
                reason: error.to_string(),
            })?;
            folder.join(name_for(config))
        }
    };
    let file = SharedFile::open(path).map_err(StateError::File)?;
    Ok(file.with_reservation_lifetime(RESERVATION_LIFETIME))
}

/// The folder that systemd gives a service, or that of the user.
fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("STATE_DIRECTORY").filter(|folder| !folder.is_empty()) {
        return Some(folder.into());
    }
    let strategy = etcetera::choose_base_strategy().ok()?;
    Some(strategy.state_dir().unwrap_or_else(|| strategy.data_dir()).join("tidegate"))
}

/// A name for each configuration file, so that gateways of several do not share their users' limits.
fn name_for(config: Option<&Path>) -> String {
    let Some(config) = config else { return "demo.state".to_owned() };
    let whole = fs::canonicalize(config).unwrap_or_else(|_| config.to_owned());
    let digest = Sha256::digest(whole.as_os_str().as_encoded_bytes());
    let stem = config.file_stem().unwrap_or_default().to_string_lossy();
    format!("{stem}-{:02x}{:02x}{:02x}{:02x}.state", digest[0], digest[1], digest[2], digest[3])
}

/// Why there is no state.
#[derive(Debug)]
pub(crate) enum StateError {
    /// The system does not tell the user's home.
    NoFolder,
    /// The folder cannot be made.
    Folder { folder: PathBuf, reason: String },
    /// The file is none.
    File(SharedFileError),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = "give another place with --state FILE, or --no-state to forget all at the end";
        match self {
            Self::NoFolder => write!(f, "no folder for the state: HOME is not set; {remedy}"),
            Self::Folder { folder, reason } => {
                write!(f, "cannot make the folder {}: {reason}; {remedy}", folder.display())
            }
            Self::File(error) => write!(f, "state: {error}"),
        }
    }
}

impl std::error::Error for StateError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_configuration_has_a_state_of_its_own() {
        let names = [None, Some("a/tidegate.toml"), Some("b/tidegate.toml"), Some("a/other.toml")]
            .map(|config| name_for(config.map(Path::new)));
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{name}");
        }
        assert!(names[1].starts_with("tidegate-") && names[1].ends_with(".state"), "{}", names[1]);
    }
}
