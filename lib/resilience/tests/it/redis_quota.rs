//! The shared quota in a real Redis, implemented outside the crate as a user would.
//!
//! Needs `redis-server` on the path; without it the test says so and passes.

use crate::{ms, secs};
use mainstay_resilience::testing::VirtualTime;
use mainstay_resilience::{
    Algorithm, Clock, KeyedLeasedLimiter, Lease, LeasedLimiter, QuotaSource, RateConfig,
    WithoutSource,
};
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Takes what is left of a quota per window, atomically: the key counts what was granted, and
/// expires with the window.
const SCRIPT: &str = "\
local used = tonumber(redis.call('GET', KEYS[1]) or '0') \
local granted = math.min(tonumber(ARGV[1]), math.max(tonumber(ARGV[2]) - used, 0)) \
redis.call('INCRBY', KEYS[1], granted) \
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end \
return {granted, redis.call('PTTL', KEYS[1])}";

/// A quota of `limit` per `window` for each key, in Redis.
struct RedisQuota {
    connection: Mutex<BufReader<TcpStream>>,
    limit: u32,
    window: Duration,
    asked: AtomicU32,
}

impl RedisQuota {
    fn connect(port: u16, limit: u32, window: Duration) -> Result<Self, Error> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(secs(5)))?;
        let connection = Mutex::new(BufReader::new(stream));
        Ok(RedisQuota { connection, limit, window, asked: AtomicU32::new(0) })
    }

    /// Sends a command and reads a reply that is an array of integers, or one integer.
    fn ask(&self, arguments: &[&str]) -> Result<Vec<i64>, Error> {
        let mut connection = self.connection.lock().map_err(|_| Error::other("poisoned"))?;
        let mut request = format!("*{}\r\n", arguments.len());
        for argument in arguments {
            request += &format!("${}\r\n{argument}\r\n", argument.len());
        }
        connection.get_mut().write_all(request.as_bytes())?;
        let mut line = || -> Result<String, Error> {
            let mut line = String::new();
            match connection.read_line(&mut line)? {
                0 => Err(ErrorKind::UnexpectedEof.into()),
                _ => Ok(line.trim_end().to_owned()),
            }
        };
        let integer = |text: &str| {
            let parsed = text.strip_prefix(':').and_then(|digits| digits.parse().ok());
            parsed.ok_or_else(|| Error::other(text.to_owned()))
        };
        let first = line()?;
        match first.strip_prefix('*').and_then(|count| count.parse::<usize>().ok()) {
            Some(count) => (0..count).map(|_| integer(&line()?)).collect(),
            None => Ok(vec![integer(&first)?]),
        }
    }
}

impl QuotaSource for RedisQuota {
    type Error = Error;

    async fn lease(&self, key: &str, want: u32) -> Result<Lease, Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let (want, limit) = (want.to_string(), self.limit.to_string());
        let window = self.window.as_millis().to_string();
        let reply = self.ask(&["EVAL", SCRIPT, "1", key, &want, &limit, &window])?;
        let [granted, left_ms] = reply[..] else { return Err(Error::other("no such reply")) };
        let granted = u32::try_from(granted).map_err(Error::other)?;
        Ok(Lease { granted, valid_for: ms(u64::try_from(left_ms).unwrap_or(0)) })
    }
}

/// A server of our own on a free port, ended with the test.
struct Server(Child, u16);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// `None` where Redis is not installed.
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let port_text = port.to_string();
        let mut child = Command::new("redis-server")
            .args(["--port", &port_text, "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut log = BufReader::new(child.stdout.take()?);
        let mut line = String::new();
        while !line.contains("Ready to accept connections") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "redis-server ended at once");
        }
        // Whoever writes to a closed pipe ends, so the rest is read to the end.
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Some(Server(child, port))
    }
}

#[test]
fn o4_b8_two_instances_share_a_quota_in_redis_and_survive_its_end() {
    let Some(server) = Server::start() else {
        eprintln!("skipped: redis-server is not installed");
        return;
    };
    let time = VirtualTime::new();
    let quota = RedisQuota::connect(server.1, 150, secs(60)).unwrap();
    let alone = RateConfig::new(Algorithm::FixedWindow, 5, secs(3_600));
    let without = WithoutSource::LimitLocally(alone);
    let instance = || LeasedLimiter::new("api", 100, without, Clock::system()).unwrap();
    let (first, second) = (instance(), instance());
    time.block_on(first.refill(&quota)).unwrap();
    time.block_on(second.refill(&quota)).unwrap();
    let spend =
        |limiter: &LeasedLimiter| (0..500).filter(|_| limiter.try_acquire(1).is_ok()).count();
    assert_eq!((spend(&first), spend(&second)), (100, 50), "150 in all");
    assert_eq!(quota.asked.load(Ordering::Relaxed), 2, "one question per lease, none per call");
    time.block_on(first.refill(&quota)).unwrap();
    assert_eq!(spend(&first), 0, "the quota is used up until its window ends");

    let keyed = KeyedLeasedLimiter::new("tenant", 10, 100, without, Clock::system()).unwrap();
    let _ = (keyed.try_acquire("a", 1), keyed.try_acquire("b", 1));
    assert_eq!(time.block_on(keyed.refill(&quota)).unwrap(), 2);
    assert_eq!((keyed.left("a"), keyed.left("b")), (10, 10), "each key has a quota of its own");

    drop(server);
    let third = instance();
    assert!(time.block_on(third.refill(&quota)).is_err());
    assert_eq!(spend(&third), 5, "without the store it limits by itself");
}
