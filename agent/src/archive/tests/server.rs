//! A download server and its archives.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::archive::{Form, Source};

/// A server on loopback that answers the n-th request (from 0) with these bytes and closes the connection.
pub struct Server {
    pub address: SocketAddr,
    pub requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub async fn start(answer: impl Fn(usize, &str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match connection.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let head = String::from_utf8(head).unwrap();
                let number = seen.lock().unwrap().len();
                let bytes = answer(number, &head);
                seen.lock().unwrap().push(head);
                let _ = connection.write_all(&bytes).await;
                let _ = connection.shutdown().await;
            }
        });
        Self { address, requests }
    }

    pub fn source(&self) -> Source {
        Source {
            url: format!("http://{}/runner.tar.gz?signature=canary", self.address).parse().unwrap(),
            sha256: None,
            token: None,
            form: Form::TarGz,
        }
    }
}

/// A whole answer, or the first `sent` bytes of it.
pub fn answer(status: &str, headers: &str, body: &[u8], sent: usize) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(&body[..sent]);
    bytes
}

pub fn whole(body: &[u8]) -> Vec<u8> {
    answer("200 OK", "", body, body.len())
}

pub fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// One entry as an attacker could write it: names are not checked.
pub fn entry(kind: EntryType, name: &str, link: &str, mode: u32, body: &[u8]) -> (Header, Vec<u8>) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(body.len() as u64);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..name.len()].copy_from_slice(name.as_bytes());
    gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    (header, body.into())
}

pub fn pack(entries: Vec<(Header, Vec<u8>)>) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (header, body) in entries {
        builder.append(&header, body.as_slice()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

/// Bytes that do not compress, so that the archive is many packets long.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}
