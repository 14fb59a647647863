//! [`Line`]: the connection to one server, made anew when it is lost.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::sentinel::SentinelClient;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, RedisResult, ServerErrorKind, Value};
use tokio::sync::Mutex;

/// One multiplexed connection: all calls of the process go over it, one behind the other, without
/// waiting for each other's answers.
pub(super) struct Line {
    source: Source,
    current: ArcSwapOption<MultiplexedConnection>,
    /// Held by who connects, so that one does.
    connecting: Mutex<()>,
    timeout: Duration,
}

/// Where the connection leads.
pub(super) enum Source {
    Server(Box<Client>),
    Sentinels(Box<Mutex<SentinelClient>>),
}

impl Line {
    /// Connects to nothing yet.
    pub(super) fn new(source: Source, timeout: Duration) -> Self {
        Self { source, current: ArcSwapOption::empty(), connecting: Mutex::new(()), timeout }
    }

    /// Sends a command, and waits for the answer. What is rare is boxed, so that little is moved for a call.
    pub(super) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        let connection = self.connection().await?;
        self.send_over(&connection, command).await
    }

    /// The same, over a connection of this line.
    pub(super) async fn send_over(
        &self,
        connection: &Arc<MultiplexedConnection>,
        command: &Cmd,
    ) -> RedisResult<Value> {
        let answer = MultiplexedConnection::clone(connection).req_packed_command(command).await;
        self.judge(connection, answer)
    }

    /// The same, behind the word that lets a cluster's node answer for a slot that is moving to it.
    pub(super) async fn send_asking(
        &self,
        connection: &Arc<MultiplexedConnection>,
        command: &Cmd,
    ) -> RedisResult<Value> {
        let mut both = redis::pipe();
        both.cmd("ASKING").add_command(command.clone());
        let answers =
            MultiplexedConnection::clone(connection).req_packed_commands(&both, 1, 1).await;
        let answer = answers.map(|answers| answers.into_iter().next().unwrap_or_default());
        self.judge(connection, answer)
    }

    fn judge(
        &self,
        connection: &Arc<MultiplexedConnection>,
        answer: RedisResult<Value>,
    ) -> RedisResult<Value> {
        let answer = answer.and_then(Value::extract_error);
        if let Err(error) = &answer
            && is_lost(error)
        {
            self.forget(connection);
        }
        answer
    }

    /// Makes the next call connect anew.
    pub(super) fn reset(&self) {
        self.current.store(None);
    }

    fn forget(&self, lost: &Arc<MultiplexedConnection>) {
        let current = self.current.load();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, lost)) {
            self.current.compare_and_swap(&*current, None);
        }
    }

    /// The connection. Makes one if there is none.
    pub(super) async fn connection(&self) -> RedisResult<Arc<MultiplexedConnection>> {
        match self.current.load_full() {
            Some(connection) => Ok(connection),
            None => Box::pin(self.new_connection()).await,
        }
    }

    /// Connects, unless somebody else just has.
    async fn new_connection(&self) -> RedisResult<Arc<MultiplexedConnection>> {
        let _connecting = self.connecting.lock().await;
        if let Some(connection) = self.current.load_full() {
            return Ok(connection);
        }
        let connection = Arc::new(self.connect().await?);
        self.current.store(Some(connection.clone()));
        Ok(connection)
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        // The caller's time-out is for all of a call; these are for what it leaves behind.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(None);
        match &self.source {
            Source::Server(client) => {
                client.get_multiplexed_async_connection_with_config(&config).await
            }
            Source::Sentinels(client) => {
                client.lock().await.get_async_connection_with_config(&config).await
            }
        }
    }
}

/// Whether the connection is of no use any more: it is gone, or leads to a server that was replaced.
pub(super) fn is_lost(error: &redis::RedisError) -> bool {
    error.is_connection_dropped()
        || error.is_io_error()
        || matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        )
}
