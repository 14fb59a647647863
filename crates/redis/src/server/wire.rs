//! [`Wire`]: sends scripts by their hash, and by their text where the server does not know them.

use std::time::Duration;

use redis::{Arg, Cmd, ErrorKind, RedisResult, ServerErrorKind, Value};

use crate::link::Link;
use crate::script::Source;
use crate::tally::{Count, ServerTally};

/// What sends scripts, and counts it.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) link: Link,
    pub(super) tally: ServerTally,
    /// How long a call waits.
    pub(super) timeout: Duration,
}

impl Wire {
    pub(super) async fn send(&self, script: &Source, command: &Cmd) -> RedisResult<Value> {
        self.tally.note(Count::round_trips);
        match self.link.send(command).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                Box::pin(self.send_whole(script, command)).await
            }
            answered => answered,
        }
    }

    /// The same, with the script's text.
    async fn send_whole(&self, script: &Source, command: &Cmd) -> RedisResult<Value> {
        self.tally.note(Count::scripts_loaded);
        let mut whole = redis::cmd("EVAL");
        whole.arg(&script.text);
        for argument in command.args_iter().skip(2) {
            if let Arg::Simple(argument) = argument {
                whole.arg(argument);
            }
        }
        self.link.send(&whole).await
    }
}
