//! A clock that wakes once a tick. The runtime's own timers sort themselves into ever finer slots as their time comes near, and wake for each.

use std::io;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::net::unix::pipe::Receiver;

/// How many bytes the kernel tells the number of ticks in. Source: `timerfd_create(2)`.
const COUNT: usize = 8;

/// Ticks until it is dropped. tokio reads its descriptor as it reads a pipe.
pub struct Ticks(Receiver);

impl Ticks {
    /// The first tick is one period from now.
    pub fn every(period: Duration) -> Result<Self> {
        let start = || -> Result<Self> {
            let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
            timer.set(Expiration::Interval(TimeSpec::from_duration(period)), TimerSetTimeFlags::empty())?;
            Ok(Self(Receiver::from_owned_fd_unchecked(timer.into())?))
        };
        start().context("starting a clock")
    }

    /// Waits for the next tick; those that were missed are one. Cancel-safe.
    pub async fn next(&self) -> io::Result<()> {
        loop {
            self.0.readable().await?;
            match self.0.try_read(&mut [0; COUNT]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(drop),
            }
        }
    }
}
