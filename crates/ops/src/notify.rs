//! What the service manager is told: ready, reloading, stopping, still alive.
//!
//! The protocol is systemd's `sd_notify`: a datagram of `NAME=value` lines to the socket named by
//! `NOTIFY_SOCKET`. Without that variable nothing is sent and nothing fails. A unit that goes with
//! it has `Type=notify-reload` and `WatchdogSec=`.

use mainstay_resilience::{Clock, ConfigError};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Characters of a status line that are sent: it is shown on one line.
const STATUS_CHARS_MAX: usize = 200;

/// The way to the service manager.
#[derive(Debug)]
pub struct Notifier {
    target: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    clock: Clock,
}

impl Notifier {
    /// The one that the environment names (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`); one
    /// that tells nobody when it names none.
    ///
    /// # Errors
    /// The variable names something that is no socket's address.
    pub fn from_env() -> Result<Self, ConfigError> {
        let watchdog_usec = std::env::var("WATCHDOG_USEC").ok().and_then(|usec| usec.parse().ok());
        let other =
            std::env::var("WATCHDOG_PID").is_ok_and(|pid| pid.parse() != Ok(std::process::id()));
        let watchdog = watchdog_usec.filter(|usec| *usec > 0 && !other);
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        Notifier::new(socket, watchdog.map(Duration::from_micros), Clock::system())
    }

    /// One that tells `socket`: an absolute path, or `@` and an abstract name.
    ///
    /// # Errors
    /// It is no such address.
    pub fn new(
        socket: Option<OsString>,
        watchdog: Option<Duration>,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        let Some(name) = socket else {
            return Ok(Notifier { target: None, watchdog: None, clock });
        };
        let refuse = |reason: &dyn std::fmt::Display| {
            let shown = format!("{:?} ({reason})", name.to_string_lossy());
            ConfigError::new("NOTIFY_SOCKET", shown, "an absolute path, or @ and a name")
        };
        let address = address(&name).map_err(|error| refuse(&error))?;
        let open = || -> io::Result<UnixDatagram> {
            let socket = UnixDatagram::unbound()?;
            // A service manager that reads slowly must not hold up the process.
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|error| refuse(&error))?;
        Ok(Notifier { target: Some((socket, address)), watchdog, clock })
    }

    /// Whether anybody is told.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.target.is_some()
    }

    /// How often to call [`watchdog`](Self::watchdog): half of what the service manager allows.
    #[must_use]
    pub fn watchdog_every(&self) -> Option<Duration> {
        self.watchdog.map(|allowed| allowed / 2)
    }

    /// The start, or a reload, is over.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// The configuration is read again; [`ready`](Self::ready) ends it.
    pub fn reloading(&self) {
        // The service manager tells reloads apart by the monotonic clock.
        let usec = self.clock.now().as_nanos() / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// The process ends, and may take this long from now on.
    pub fn stopping(&self, status: &str, lasting: Duration) {
        let (status, usec) = (one_line(status), lasting.as_micros());
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={usec}\nSTATUS={status}"));
    }

    /// What the process does now, for people.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", one_line(status)));
    }

    /// The process lives. Call it only while [liveness](crate::health::Pulses::liveness) holds, so
    /// that a loop that hangs ends in a restart.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// Telling nobody is no reason to fail: it is logged and forgotten.
    fn send(&self, text: &str) {
        let Some((socket, address)) = &self.target else { return };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            tracing::warn!(%error, "the service manager could not be told");
        }
    }
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', abstract_name @ ..] => {
            use std::os::linux::net::SocketAddrExt;
            SocketAddr::from_abstract_name(abstract_name)
        }
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it begins neither with / nor with @"))
        }
    }
}

/// A line break would begin another assignment.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(STATUS_CHARS_MAX).collect()
}
