//! Small servers that run on threads of a namespace until they are dropped.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::gateway::PATIENCE;
use crate::netns::Namespace;

/// Bytes that are the same every time and never repeat at a power of two.
pub fn body(len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Binds an address that the kernel may take a moment to offer: an IPv6 one is tentative until its
/// link is up.
fn settled<T>(bind: impl Fn() -> std::io::Result<T>) -> T {
    for _ in 0..250 {
        match bind() {
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                std::thread::sleep(Duration::from_millis(20));
            }
            bound => return bound.expect("a free port"),
        }
    }
    bind().expect("the address within five seconds")
}

/// Ends its threads when dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

impl Server {
    /// HTTP: `/N` is answered with [`body`]`(N)`, `/N/slow` with the same at about 2 MB/s.
    pub fn http(namespace: &Namespace, address: &str) -> Server {
        let address: SocketAddr = address.parse().expect("an address and port");
        let listener = namespace.within(move || settled(|| TcpListener::bind(address)));
        listener.set_nonblocking(true).expect("sockets can be made non-blocking");
        let stop = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&stop);
        std::thread::spawn(move || {
            while !over.load(Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => {
                        let over = Arc::clone(&over);
                        std::thread::spawn(move || answer(client, &over));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Server { stop }
    }

    /// UDP: every datagram goes back to its sender behind the text of the sender's address.
    pub fn udp_echo(namespace: &Namespace, address: &str) -> Server {
        let address: SocketAddr = address.parse().expect("an address and port");
        let socket = namespace.within(move || settled(|| UdpSocket::bind(address)));
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout can be set");
        let stop = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            while !over.load(Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                let mut reply = format!("{from} ").into_bytes();
                reply.extend_from_slice(&buffer[..len]);
                // A client that went away is no concern of an echo server.
                let _ = socket.send_to(&reply, from);
            }
        });
        Server { stop }
    }
}

fn answer(mut client: TcpStream, over: &AtomicBool) {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    // Accepted sockets of a non-blocking listener block again.
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        match client.read(&mut piece) {
            Ok(n) if n > 0 => request.extend_from_slice(&piece[..n]),
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    let path = text.split(' ').nth(1).unwrap_or("/0");
    let mut parts = path.trim_start_matches('/').split('/');
    let len = parts.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let slow = parts.next() == Some("slow");
    let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {len}\r\n\r\n");
    if client.write_all(head.as_bytes()).is_err() {
        return;
    }
    for piece in body(len).chunks(20_000) {
        if over.load(Relaxed) || client.write_all(piece).is_err() {
            return;
        }
        if slow {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A UDP socket of a host that knows whom it talks to.
pub fn udp_client(namespace: &Namespace, from: &str, to: &str) -> UdpSocket {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let socket = namespace.within(move || {
        let socket = UdpSocket::bind(from).expect("a free port");
        socket.connect(to).expect("a route");
        socket
    });
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    socket
}

/// Sends a datagram and returns what comes back.
pub fn exchange(socket: &UdpSocket, payload: &[u8]) -> std::io::Result<Vec<u8>> {
    socket.send(payload)?;
    let mut buffer = vec![0; 65536];
    let len = socket.recv(&mut buffer)?;
    buffer.truncate(len);
    Ok(buffer)
}
