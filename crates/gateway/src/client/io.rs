//! [`ClientIo`]: a client's connection, which may not stand still for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::Patience;

/// A client's connection. It fails when its first bytes do not [tell](Self::hear) in time which HTTP it speaks
/// (hyper's own limit begins after them), and when it does not take what is written to it.
pub(crate) struct ClientIo<S> {
    inner: S,
    patience: Patience,
    first: First,
    writing: Timer,
}

/// What was read to tell which HTTP it is, and is to be read once more.
#[derive(Default)]
struct First {
    bytes: [u8; PREFACE.len()],
    read_again: usize,
    len: usize,
}

/// Which HTTP a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
}

/// What HTTP/2 begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl<S> ClientIo<S> {
    pub(crate) fn new(inner: S, patience: Patience) -> Self {
        Self { inner, patience, first: First::default(), writing: Timer::default() }
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

impl<S: AsyncRead + Unpin> ClientIo<S> {
    /// Waits until it is told which HTTP it is. HTTP/1.1 it is also when nothing more comes.
    pub(crate) async fn hear(&mut self) -> io::Result<Spoken> {
        let telling = async {
            let first = &mut self.first;
            loop {
                let length = self.inner.read(&mut first.bytes[first.len..]).await?;
                first.len += length;
                if length == 0 || first.bytes[..first.len] != PREFACE[..first.len] {
                    return Ok(Spoken::Http1);
                }
                if first.len == PREFACE.len() {
                    return Ok(Spoken::Http2);
                }
            }
        };
        tokio::time::timeout(self.patience.head, telling).await.map_err(|_| too_slow())?
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
        let first = &mut self.first;
        let rest = &first.bytes[first.read_again..first.len];
        if rest.is_empty() {
            return Pin::new(&mut self.inner).poll_read(context, buffer);
        }
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        first.read_again += length;
        // With what follows, so that whoever reads needs no more room for the two.
        match Pin::new(&mut self.inner).poll_read(context, buffer) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
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
    use tokio::io::{AsyncWriteExt, duplex};

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
            let error = server.hear().await.unwrap_err();
            assert_eq!((error.kind(), start.elapsed()), (io::ErrorKind::TimedOut, PATIENCE.head));
        }
    }

    #[tokio::test]
    async fn all_that_was_sent_is_read_whatever_it_is() {
        let http2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nframes";
        let long = format!("POST / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(100));
        let cases = [
            (http2, Spoken::Http2),
            ("G", Spoken::Http1),
            ("PRI * HTTP/1", Spoken::Http1),
            (&*long, Spoken::Http1),
            ("", Spoken::Http1),
        ];
        for (bytes, spoken) in cases {
            for at_once in [1, 5, 1_000] {
                let (mut client, server) = duplex(at_once);
                let mut server = ClientIo::new(server, PATIENCE);
                let sending = async {
                    client.write_all(bytes.as_bytes()).await.unwrap();
                    drop(client);
                };
                let reading = async {
                    assert_eq!(server.hear().await.unwrap(), spoken, "{bytes}");
                    let mut read = Vec::new();
                    server.read_to_end(&mut read).await.unwrap();
                    read
                };
                let ((), read) = tokio::join!(sending, reading);
                assert_eq!(read, bytes.as_bytes());
            }
        }
    }

    /// So that hyper's buffer for a request need not grow for its first bytes.
    #[tokio::test]
    async fn the_first_bytes_come_with_those_that_follow() {
        let (mut client, server) = duplex(1_000);
        let mut server = ClientIo::new(server, PATIENCE);
        client.write_all(&[b'G'; 300]).await.unwrap();
        server.hear().await.unwrap();
        assert_eq!(server.read(&mut [0; 1_000]).await.unwrap(), 300);
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
