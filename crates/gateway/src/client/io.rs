//! [`ClientIo`]: a client's connection, which may not stand still for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::Patience;

/// A client's connection. It fails when its first bytes do not tell in time which HTTP it speaks (hyper's own
/// limit begins after them), and when it does not take what is written to it.
pub(crate) struct ClientIo<S> {
    inner: S,
    patience: Patience,
    /// How much of [`PREFACE`] has been read; `None` once it is told which HTTP it is.
    preface: Option<usize>,
    reading: Timer,
    writing: Timer,
}

/// What HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl<S> ClientIo<S> {
    pub(crate) fn new(inner: S, patience: Patience) -> Self {
        Self {
            inner,
            patience,
            preface: Some(0),
            reading: Timer::default(),
            writing: Timer::default(),
        }
    }

    /// Looks at what has been read, until it is told which HTTP it is.
    fn look_at(&mut self, bytes: &[u8]) {
        let Some(known) = self.preface else { return };
        let wanted = &PREFACE[known..];
        let length = bytes.len().min(wanted.len());
        let is_open =
            !bytes.is_empty() && bytes[..length] == wanted[..length] && length < wanted.len();
        self.preface = is_open.then_some(known + length);
    }

    /// What came of writing: an error, when nothing was taken for too long.
    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.writing.stop();
            return poll;
        }
        ready!(self.writing.poll(self.patience.take, context));
        Poll::Ready(Err(too_slow()))
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client took too long")
}

/// A time that runs while something is waited for.
#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    is_running: bool,
}

impl Timer {
    fn stop(&mut self) {
        self.is_running = false;
    }

    /// Whether it is over. It begins when it is first asked.
    fn poll(&mut self, limit: Duration, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !std::mem::replace(&mut self.is_running, true) {
            sleep.as_mut().reset(Instant::now() + limit);
        }
        sleep.as_mut().poll(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.inner).poll_read(context, buffer) {
            Poll::Ready(read) => {
                self.look_at(&buffer.filled()[before..]);
                Poll::Ready(read)
            }
            Poll::Pending if self.preface.is_some() => {
                let head = self.patience.head;
                ready!(self.reading.poll(head, context));
                Poll::Ready(Err(too_slow()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.written(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.written(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(3),
        body: Duration::from_secs(3),
        take: Duration::from_secs(5),
    };

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_tell_what_it_speaks_fails() {
        for bytes in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
            let (mut client, server) = duplex(64);
            let mut server = ClientIo::new(server, PATIENCE);
            let start = Instant::now();
            client.write_all(bytes.as_bytes()).await.unwrap();
            let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!((error.kind(), start.elapsed()), (io::ErrorKind::TimedOut, PATIENCE.head));
        }
        for bytes in ["G", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * HTTP/1"] {
            let (mut client, server) = duplex(64);
            let mut server = ClientIo::new(server, PATIENCE);
            client.write_all(bytes.as_bytes()).await.unwrap();
            let reading = async { server.read_to_end(&mut Vec::new()).await };
            let hour = Duration::from_secs(3_600);
            assert!(
                tokio::time::timeout(hour, reading).await.is_err(),
                "hyper's own limit is for it"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_takes_nothing_fails_and_one_that_takes_little_does_not() {
        let (mut client, server) = duplex(8);
        let mut server = ClientIo::new(server, PATIENCE);
        let taking = async {
            let mut byte = [0];
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                client.read_exact(&mut byte).await.unwrap();
            }
            client
        };
        let writing = async { server.write_all(&[0; 18]).await };
        let (client, written) = tokio::join!(taking, writing);
        assert!(written.is_ok());
        let start = Instant::now();
        let error = server.write_all(&[0; 18]).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (io::ErrorKind::TimedOut, PATIENCE.take));
        drop(client);
    }
}
