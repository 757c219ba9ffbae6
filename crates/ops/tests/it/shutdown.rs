//! O6: ordered phases with deadlines, a second signal, exit codes, the service manager.

use mainstay_ops::notify::Notifier;
use mainstay_ops::shutdown::{
    EXIT_CLEAN, EXIT_FORCED, EXIT_INCOMPLETE, PhaseState, Plan, Shutdown, TOTAL_DEFAULT,
};
use mainstay_resilience::{Clock, ManualClock};
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn states(progress: &mainstay_ops::shutdown::Progress) -> Vec<PhaseState> {
    progress.phases.iter().map(|phase| phase.state).collect()
}

// O6
#[test]
fn phases_run_in_order_and_the_end_is_clean() {
    let shutdown = Shutdown::new(ManualClock::new().clock());
    assert_eq!(shutdown.progress().to_string(), "running");
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut plan = Plan::new(TOTAL_DEFAULT);
    for name in ["not ready", "stop accepting", "drain", "flush", "close"] {
        let order = Arc::clone(&order);
        plan = plan
            .phase(name, 5 * SECOND, move |_| {
                order.lock().unwrap().push(name);
                Ok(())
            })
            .unwrap();
    }
    assert!(!shutdown.request("SIGTERM"));
    shutdown.wait();
    let progress = plan.run(&shutdown);
    assert_eq!(progress.exit_code(), EXIT_CLEAN);
    assert_eq!(*order.lock().unwrap(), ["not ready", "stop accepting", "drain", "flush", "close"]);
    let text = progress.to_string();
    assert!(text.starts_with("shutting down (SIGTERM): not ready done in 0 ms, "), "{text}");
}

// O6
#[test]
fn a_phase_that_hangs_is_left_behind_and_the_next_one_runs() {
    let manual = ManualClock::new();
    let shutdown = Shutdown::new(manual.clock());
    let (release, hanging) = channel::<()>();
    let clock = manual.clone();
    let plan = Plan::new(TOTAL_DEFAULT)
        .phase("drain", 10 * SECOND, move |context| {
            context.note("3 requests");
            clock.advance(10 * SECOND);
            let _ = hanging.recv();
            Ok(())
        })
        .unwrap()
        .phase("flush", SECOND, |context| {
            assert_eq!(context.remaining(), SECOND);
            Ok(())
        })
        .unwrap();
    shutdown.request("SIGINT");
    let progress = plan.run(&shutdown);
    assert_eq!(states(&progress), [PhaseState::Late, PhaseState::Done]);
    assert_eq!(progress.exit_code(), EXIT_INCOMPLETE);
    assert!(progress.to_string().contains("drain not done in 10000 ms (3 requests)"), "{progress}");
    drop(release);
}

// O6
#[test]
fn a_phase_gets_what_earlier_ones_left_of_their_time_and_never_more_than_the_whole() {
    let manual = ManualClock::new();
    let shutdown = Shutdown::new(manual.clock());
    let (clock, late) = (manual.clone(), manual.clone());
    let (release, hanging) = channel::<()>();
    let plan = Plan::new(TOTAL_DEFAULT)
        .phase("drain", 25 * SECOND, move |_| {
            clock.advance(SECOND);
            Ok(())
        })
        .unwrap()
        .phase("close", 4 * SECOND, move |context| {
            assert_eq!(context.remaining(), 28 * SECOND);
            late.advance(28 * SECOND);
            let _ = hanging.recv();
            Ok(())
        })
        .unwrap()
        .phase("flush", SECOND, |context| {
            assert_eq!(context.remaining(), SECOND);
            Ok(())
        })
        .unwrap();
    let progress = plan.run(&shutdown);
    assert_eq!(states(&progress), [PhaseState::Done, PhaseState::Late, PhaseState::Done]);
    let deadlines: Vec<u64> = progress.phases.iter().map(|phase| phase.deadline_ms).collect();
    assert_eq!(deadlines, [25_000, 28_000, 1_000]);
    drop(release);
}

// O6
#[test]
fn a_phase_that_fails_or_panics_is_named_and_stops_no_other() {
    let shutdown = Shutdown::new(ManualClock::new().clock());
    let plan = Plan::new(TOTAL_DEFAULT)
        .phase("a", SECOND, |_| Err("db postgres://u:hunter2@h gone".into()))
        .unwrap()
        .phase("b", SECOND, |_| panic!("b"))
        .unwrap()
        .phase("c", SECOND, |_| Ok(()))
        .unwrap();
    let progress = plan.run(&shutdown);
    assert_eq!(states(&progress), [PhaseState::Failed, PhaseState::Failed, PhaseState::Done]);
    assert_eq!(progress.phases[1].note, "it panicked");
    assert!(!progress.phases[0].note.contains("hunter2"));
    assert_eq!(progress.exit_code(), EXIT_INCOMPLETE);
}

// O6
#[test]
fn a_second_signal_cuts_everything_short() {
    let shutdown = Shutdown::new(ManualClock::new().clock());
    let (release, hanging) = channel::<()>();
    let second = shutdown.clone();
    let plan = Plan::new(TOTAL_DEFAULT)
        .phase("drain", 10 * SECOND, move |context| {
            assert!(second.request("SIGTERM"));
            assert_eq!(context.remaining(), Duration::ZERO);
            let _ = hanging.recv();
            Ok(())
        })
        .unwrap()
        .phase("flush", SECOND, |_| panic!("must not run"))
        .unwrap();
    assert!(!shutdown.request("SIGTERM"));
    let progress = plan.run(&shutdown);
    assert_eq!(states(&progress), [PhaseState::Skipped, PhaseState::Skipped]);
    assert_eq!(progress.exit_code(), EXIT_FORCED);
    drop(release);
}

// O6
#[test]
fn deadlines_that_exceed_the_whole_are_refused() {
    let plan = Plan::new(TOTAL_DEFAULT).phase("drain", 25 * SECOND, |_| Ok(())).unwrap();
    let refused = plan.phase("flush", 6 * SECOND, |_| Ok(())).err().unwrap().to_string();
    let allowed = "above 0s and at most 5s, what is left of 30s";
    assert_eq!(refused, format!("shutdown.flush: 6s is not allowed, use {allowed}"));
}

fn received(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 512];
    let length = socket.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

// O6
#[test]
fn the_service_manager_hears_everything_over_a_real_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let manual = ManualClock::new();
    let watchdog = Some(20 * SECOND);
    let notifier = Notifier::new(Some(path.into()), watchdog, manual.clock()).unwrap();
    assert_eq!(notifier.watchdog_every(), Some(10 * SECOND));
    notifier.ready("serving\nSTOPPING=1");
    assert_eq!(received(&manager), "READY=1\nSTATUS=serving STOPPING=1");
    notifier.watchdog();
    assert_eq!(received(&manager), "WATCHDOG=1");
    notifier.reloading();
    assert_eq!(received(&manager), "RELOADING=1\nMONOTONIC_USEC=3600000000");
    notifier.status("draining");
    assert_eq!(received(&manager), "STATUS=draining");
    notifier.stopping("SIGTERM", 30 * SECOND);
    assert_eq!(received(&manager), "STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000\nSTATUS=SIGTERM");
    // The service manager goes away: nobody fails.
    drop(manager);
    notifier.watchdog();
}

// O6
#[test]
fn an_abstract_socket_is_reached_and_no_address_is_refused() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    let name = format!("mainstay-notify-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = UnixDatagram::bind_addr(&address).unwrap();
    let socket = Some(format!("@{name}").into());
    Notifier::new(socket, None, Clock::system()).unwrap().ready("up");
    assert_eq!(received(&manager), "READY=1\nSTATUS=up");
    let refused = Notifier::new(Some("relative".into()), None, Clock::system()).unwrap_err();
    assert!(refused.to_string().starts_with("NOTIFY_SOCKET: \"relative\" (it begins neither"));
    let nobody = Notifier::new(None, Some(SECOND), Clock::system()).unwrap();
    nobody.ready("to nobody");
    assert!(!nobody.is_connected() && nobody.watchdog_every().is_none());
}
