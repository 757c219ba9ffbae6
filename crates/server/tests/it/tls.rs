//! C5: HTTPS with certificates that are renewed while the server runs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_server::Config;
use mainstay_server::tls::Pem;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::Running;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate and its key, in PEM.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

fn pem((certificate, key): (String, String), client_ca: Option<String>) -> Pem {
    Pem {
        certificates: certificate.into_bytes(),
        key: key.into_bytes(),
        client_ca: client_ca.map(String::into_bytes),
    }
}

/// A server that reads its certificate from here.
fn serve(files: &Arc<Mutex<Pem>>) -> Running {
    let read = Arc::clone(files);
    Running::start_tuned(Config::default(), move |server| {
        server.encrypt(Box::new(move || Ok(read.lock().unwrap().clone()))).unwrap();
    })
}

fn ask(
    server: &Running,
    authority: &Authority,
    client: Option<(String, String)>,
) -> Result<u16, String> {
    let root = Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let client = client.map(|(certificate, key)| {
        let chain = [Certificate::from_pem(certificate.as_bytes()).unwrap()];
        ClientCert::new_with_certs(&chain, PrivateKey::from_pem(key.as_bytes()).unwrap())
    });
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&[root]))
        .client_cert(client)
        .build();
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(30)))
        .tls_config(tls)
        .http_status_as_error(false)
        .build()
        .new_agent();
    let url = format!("https://localhost:{}/health/live", server.address.port());
    let answer = agent.get(url).call().map_err(|error| error.to_string())?;
    let hsts = answer.headers().get("strict-transport-security");
    assert!(hsts.is_some(), "browsers are told to stay with TLS");
    Ok(answer.status().as_u16())
}

#[test]
fn a_renewed_certificate_is_taken_over_and_a_broken_one_is_not() {
    let (first, second) = (Authority::new(), Authority::new());
    let files = Arc::new(Mutex::new(pem(first.issue(), None)));
    let server = serve(&files);
    assert_eq!(ask(&server, &first, None), Ok(200));
    let watched = server.control().liveness().watched;
    assert!(!watched.contains(&"certificate".to_string()), "its files may lie on a network: V1");
    assert!(ask(&server, &second, None).is_err());
    *files.lock().unwrap() = pem(("no certificate".into(), "no key".into()), None);
    assert!(server.control().refresh_certificate().is_err());
    assert_eq!(ask(&server, &first, None), Ok(200), "the one in use stays in use");
    *files.lock().unwrap() = pem(second.issue(), None);
    assert_eq!(server.control().refresh_certificate(), Ok(true));
    assert_eq!(ask(&server, &second, None), Ok(200));
    assert!(ask(&server, &first, None).is_err());
    let (certificate, _) = first.issue();
    *files.lock().unwrap() = pem((certificate, second.issue().1), None);
    let refused = server.control().refresh_certificate().unwrap_err();
    assert!(refused.contains("tls.certificate and tls.key do not go together"), "{refused}");
}

#[test]
fn clients_show_a_certificate_when_one_is_asked_for() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = Arc::new(Mutex::new(pem(authority.issue(), Some(authority.pem()))));
    let server = serve(&files);
    assert!(ask(&server, &authority, None).is_err());
    assert!(ask(&server, &authority, Some(other.issue())).is_err());
    assert_eq!(ask(&server, &authority, Some(authority.issue())), Ok(200));
}

#[test]
fn who_speaks_no_tls_is_given_up_and_the_others_are_served() {
    let authority = Authority::new();
    let files = Arc::new(Mutex::new(pem(authority.issue(), None)));
    let server = serve(&files);
    let mut plain = TcpStream::connect(server.address).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "nothing is said in the clear");
    // A handshake that never goes on holds a place and nothing else.
    let _silent = TcpStream::connect(server.address).unwrap();
    assert_eq!(ask(&server, &authority, None), Ok(200));
}
