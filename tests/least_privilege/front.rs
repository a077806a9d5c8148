//! TLS and a login in front of MLflow, as a proxy that a company has there. Who does not log in is shown the
//! request as it came, as a proxy does that somebody debugs with.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::simulated::machine::free_port;

/// The authority that signed its certificate.
pub(crate) const CA: &str = include_str!("../support/tls/ca.pem");
const CERTIFICATE: &[u8] = include_bytes!("../support/tls/server.pem");
const KEY: &[u8] = include_bytes!("../support/tls/server.key");

/// A proxy that runs until the process ends.
pub(crate) struct Front {
    port: u16,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    admitted: AtomicUsize,
    refused: AtomicUsize,
}

impl Front {
    /// Passes requests with this `Authorization` on to a port of this machine.
    pub(crate) fn open(to: u16, authorization: String) -> Result<Self> {
        let certificates = vec![CertificateDer::from_pem_slice(CERTIFICATE)?];
        let key = PrivateKeyDer::from_pem_slice(KEY)?;
        let tls =
            Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?);
        let (port, counts) = (free_port()?, Arc::new(Counts::default()));
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let seen = Arc::clone(&counts);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, authorization, counts) =
                    (Arc::clone(&tls), authorization.clone(), Arc::clone(&seen));
                std::thread::spawn(move || {
                    if let Ok(tls) = ServerConnection::new(tls) {
                        // A client that hangs up early is no concern of ours.
                        let _ = answer(StreamOwned::new(tls, stream), to, &authorization, &counts);
                    }
                });
            }
        });
        Ok(Self { port, counts })
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// How many requests were admitted, and how many refused.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.counts.admitted.load(Ordering::Relaxed), self.counts.refused.load(Ordering::Relaxed))
    }
}

/// Answers the one request of a connection.
fn answer(
    mut client: StreamOwned<ServerConnection, TcpStream>,
    to: u16,
    authorization: &str,
    counts: &Counts,
) -> io::Result<()> {
    let (head, body) = request(&mut BufReader::new(&mut client))?;
    let header = |name: &str| {
        let found = head.iter().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
        found.map(|line| line[name.len() + 1..].trim())
    };
    let answer = if header("authorization") == Some(authorization) {
        counts.admitted.fetch_add(1, Ordering::Relaxed);
        let kept = head.iter().filter(|line| {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            !["authorization", "connection"].contains(&name.as_str())
        });
        let head = kept.map(String::as_str).collect::<Vec<_>>().join("\r\n");
        let mut server = TcpStream::connect(("127.0.0.1", to))?;
        server.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes())?;
        server.write_all(&body)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        answer
    } else {
        counts.refused.fetch_add(1, Ordering::Relaxed);
        let sent = header("authorization").unwrap_or_default();
        let said = format!("You are not authenticated. Authorization: {sent}");
        let status = "HTTP/1.1 401 Unauthorized\r\nContent-Type: text/html\r\nConnection: close\r\n";
        format!("{status}Content-Length: {}\r\n\r\n{said}", said.len()).into_bytes()
    };
    client.write_all(&answer)?;
    client.conn.send_close_notify();
    client.flush()
}

/// The lines of a request's head, and its body.
fn request(client: &mut impl BufRead) -> io::Result<(Vec<String>, Vec<u8>)> {
    let mut head = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if client.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(given) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = given.trim().parse().unwrap_or_default();
        }
        head.push(line.to_owned());
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body)?;
    Ok((head, body))
}
