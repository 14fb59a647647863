//! The section `[client]`.

use std::time::Duration;

use serde::Deserialize;
use tidegate::policy::{FileError, Source, Spanned};

use super::Patience;

/// How long clients may take, as it stands in a file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientSpec {
    head_timeout_s: Option<Spanned<u64>>,
    body_timeout_s: Option<Spanned<u64>>,
    take_timeout_s: Option<Spanned<u64>>,
}

impl ClientSpec {
    pub(crate) fn build(&self, source: &Source<'_>) -> Result<Patience, FileError> {
        let usual = Patience::default();
        let seconds = |field: &Option<Spanned<u64>>, name: &str, usual: Duration| match field {
            None => Ok(usual),
            Some(seconds) if *seconds.get_ref() == 0 => {
                let message = "nobody would be in time; give at least 1";
                Err(source.error(seconds.span(), &format!("client.{name}"), &message))
            }
            Some(seconds) => Ok(Duration::from_secs(*seconds.get_ref())),
        };
        Ok(Patience {
            head: seconds(&self.head_timeout_s, "head_timeout_s", usual.head)?,
            body: seconds(&self.body_timeout_s, "body_timeout_s", usual.body)?,
            take: seconds(&self.take_timeout_s, "take_timeout_s", usual.take)?,
        })
    }
}
