//! [`Client`]: keeps a server busy with little work of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// One request at a time on each of many connections that stay open.
///
/// The connections are two groups: while the server answers one, the client reads what the other was
/// answered, so that the server never waits for the client. A request is the same few bytes each time,
/// and a response is only searched for its status and its length, so the client is the quicker of the
/// two.
#[derive(Debug)]
pub struct Client {
    groups: [Vec<TcpStream>; 2],
    status: u16,
    read: Vec<u8>,
}

/// Connections to a group.
const GROUP: usize = 32;

/// The most that a head and a body take.
const LONGEST: usize = 4096;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

impl Client {
    /// Connections to `server`, whose responses will have this status from the second on.
    ///
    /// # Panics
    /// When the server cannot be reached.
    #[must_use]
    pub fn new(server: SocketAddr, status: u16) -> Self {
        let connect = |_| {
            let stream = TcpStream::connect(server).expect("the server listens");
            stream.set_nodelay(true).expect("a socket");
            stream
        };
        let group = || (0..GROUP).map(connect).collect();
        let mut client = Self { groups: [group(), group()], status, read: vec![0; LONGEST] };
        // What a limit of one has is spent here.
        send(&client.groups[0][0]);
        let _ = receive(&client.groups[0][0], &mut client.read);
        client
    }

    /// Asks the server at least so many times, and waits for all answers.
    ///
    /// # Panics
    /// When a response has another status, or the connection breaks.
    pub fn run(&mut self, count: u64) {
        let rounds = count.div_ceil(2 * GROUP as u64);
        self.groups[0].iter().for_each(send);
        for round in 1..=rounds {
            self.groups[1].iter().for_each(send);
            self.receive_all(0);
            if round < rounds {
                self.groups[0].iter().for_each(send);
            }
            self.receive_all(1);
        }
    }

    /// The last first: when that is there, the others are as well, and none has to be waited for.
    fn receive_all(&mut self, group: usize) {
        for stream in self.groups[group].iter().rev() {
            let status = receive(stream, &mut self.read);
            assert_eq!(status, self.status, "the server's status");
        }
    }
}

fn send(mut stream: &TcpStream) {
    stream.write_all(REQUEST).expect("the server takes requests");
}

/// Reads one response, and returns its status.
fn receive(mut stream: &TcpStream, read: &mut [u8]) -> u16 {
    let (mut filled, mut whole) = (0, None);
    while whole.is_none_or(|whole| filled < whole) {
        let more = stream.read(&mut read[filled..]).expect("the server answers");
        assert!(more > 0, "the server closed the connection");
        filled += more;
        whole = whole.or_else(|| length(&read[..filled]));
    }
    assert_eq!(whole, Some(filled), "one response to one request");
    let status = read[9..12].iter();
    status.fold(0, |status, digit| status * 10 + u16::from(digit - b'0'))
}

/// How long a response is, once its head is there.
fn length(read: &[u8]) -> Option<usize> {
    const FIELD: &[u8] = b"\r\ncontent-length: ";
    let head = find(read, b"\r\n\r\n")? + 4;
    let field = find(&read[..head], FIELD).expect("a length") + FIELD.len();
    let digits = read[field..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(head + digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0')))
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_known_as_soon_as_the_head_is_there() {
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\nvary: x\r\n\r\nhello, world";
        let head = response.len() - 12;
        assert!((0..head).all(|read| length(&response[..read]).is_none()));
        assert!((head..=response.len()).all(|read| length(&response[..read]) == Some(head + 12)));
    }
}
