//! C5: commands and a server that know each other by certificates of a private authority.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::server::Server;
use crate::{mainstay, text, write};

/// An authority with a certificate for the server and one for a client, as files in a folder.
fn certificates(folder: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    write(folder, "ca.pem", &authority.pem());
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        write(folder, &format!("{name}.pem"), &params.signed_by(&key, &authority).unwrap().pem());
        write(folder, &format!("{name}.key"), &key.serialize_pem());
    }
}

#[test]
fn commands_believe_a_private_authority_and_show_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let path = |name: &str| text(&folder.path().join(name)).to_string();
    let set = |name: &str, file: &str| ["--set".to_string(), format!("tls.{name}={}", path(file))];
    let tls =
        [set("certificate", "server.pem"), set("key", "server.key"), set("client_ca", "ca.pem")];
    let tls: Vec<&str> = tls.iter().flatten().map(String::as_str).collect();
    write(folder.path(), "docs/a.md", "a zebra");
    mainstay(&["index", &path("docs"), "--data", &path("data"), "--model", "static"]).ok();
    let server = Server::start_with(&folder.path().join("data"), &tls, &[]);
    let url = server.url.replace("http://127.0.0.1", "https://localhost");
    let (ca, cert, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
    let queries = path("queries");
    write(folder.path(), "queries", "zebra\n");
    let known = ["--ca", &ca, "--cert", &cert, "--cert-key", &key];
    let load = ["load", "--queries", &queries, "--duration", "200ms", "--rate", "20"];
    for command in [&["health"][..], &["level"], &["flags"], &["search", "zebra"], &load] {
        let ask = |trust: &[&str]| mainstay(&[command, &["--url", &url], trust].concat());
        ask(&known).ok();
        // An authority that nobody has heard of, and then a server that wants to see a certificate.
        for trust in [&[][..], &known[..2]] {
            let refused = ask(trust);
            assert_ne!(refused.code, 0, "{command:?} {trust:?}: {}", refused.out);
        }
        let half = ask(&known[..4]);
        assert!(
            half.out.contains("go together") || half.err.contains("go together"),
            "{}",
            half.err
        );
    }
    let unknown = mainstay(&["health", "--url", &url]);
    assert_eq!(unknown.code, 3, "{}", unknown.out);
    let variables = [("MAINSTAY_CA", &ca), ("MAINSTAY_CERT", &cert), ("MAINSTAY_CERT_KEY", &key)];
    let mut of_variables = std::process::Command::new(env!("CARGO_BIN_EXE_mainstay"));
    of_variables.args(["health", "--url", &url]).envs(variables);
    assert!(of_variables.status().unwrap().success());
    for (file, why) in [("nothing.pem", "No such file"), ("queries", "no certificate")] {
        let wrong = mainstay(&["level", "--url", &url, "--ca", &path(file)]);
        assert!(wrong.code == 2 && wrong.err.contains(why), "{}", wrong.err);
    }
}
