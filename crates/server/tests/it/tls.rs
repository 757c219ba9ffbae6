//! C5: HTTPS with certificates that are renewed while the server runs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_server::Config;
use mainstay_server::settings::Settings;
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

/// What a log is written to.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// C5: files that are gone, cannot be read or are half written leave the certificate in use, and the
/// log and the metric say so at each reload of the settings.
#[test]
fn files_that_cannot_be_read_at_a_reload_leave_the_old_certificate_and_are_told() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let write = |(chain, secret): (String, String)| {
        std::fs::write(&certificate, chain).unwrap();
        std::fs::write(&key, secret).unwrap();
    };
    write(authority.issue());
    let paths = (certificate.clone(), key.clone());
    let read = move || {
        let bytes = |path: &std::path::Path| {
            std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        Ok(Pem { certificates: bytes(&paths.0)?, key: bytes(&paths.1)?, client_ca: None })
    };
    let server = Running::start_tuned(Config::default(), move |server| {
        let settings = || Ok(Settings::default());
        server.reload_from(Settings::default(), Box::new(settings), Box::new(|_| Ok(())));
        server.encrypt(Box::new(read)).unwrap();
    });
    assert_eq!(ask(&server, &authority, None), Ok(200));
    // The receiver of metrics is the process's own.
    let plain = Running::start();
    let failures = || {
        let metrics = plain.get("/metrics").body;
        let name = "mainstay_tls_reloads_total{result=\"failed\"} ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |number| number.parse::<u64>().unwrap())
    };
    let said = Said::default();
    let to = said.clone();
    let log = tracing_subscriber::fmt().with_writer(move || to.clone()).finish();
    let log = tracing::Dispatch::new(log);
    let reload = || tracing::dispatcher::with_default(&log, || server.control().reload("test"));
    let (whole, hidden) = (std::fs::read(&certificate).unwrap(), folder.path().join("hidden"));
    let breakages: [(&str, &dyn Fn()); 4] = [
        ("c.pem: No such file", &|| std::fs::rename(&certificate, &hidden).unwrap()),
        ("c.pem: Is a directory", &|| std::fs::create_dir(&certificate).unwrap()),
        ("holds no certificate", &|| {
            std::fs::remove_dir(&certificate).unwrap();
            std::fs::write(&certificate, "").unwrap();
        }),
        ("tls.certificate", &|| std::fs::write(&certificate, &whole[..whole.len() / 2]).unwrap()),
    ];
    for (told, damage) in breakages {
        damage();
        let before = failures();
        said.0.lock().unwrap().clear();
        reload().unwrap();
        let log = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
        assert!(log.contains("the old one stays in use") && log.contains(told), "{told}: {log}");
        assert!(failures() > before, "{told} is not counted");
        assert_eq!(ask(&server, &authority, None), Ok(200), "{told}");
    }
    let second = Authority::new();
    write(second.issue());
    reload().unwrap();
    assert_eq!(ask(&server, &second, None), Ok(200), "mended files are taken over");
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
