//! Decides on every algorithm, alone and keyed, with nothing but the core underneath: no std, no
//! allocator, no libc.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

use tidegate_core::{
    AtomicU64, Borrowed, Cost, FixedWindow, Key, Limiter, Line, Protocol, Quota,
    SlidingWindowCounter, SlidingWindowLog, Table, Tally, Timestamp, TokenBucket,
};

/// Ends the program with a code of its own.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(101)
}

macro_rules! constant {
    ($made:expr) => {
        match $made {
            Ok(made) => made,
            Err(_) => panic!(),
        }
    };
}

const QUOTA: Quota = Quota::per_minute(2);
static BUCKET: Limiter<TokenBucket> = Limiter::new(constant!(TokenBucket::new(QUOTA)));
static WINDOW: Limiter<FixedWindow> = Limiter::new(constant!(FixedWindow::new(QUOTA)));
static COUNTER: Limiter<SlidingWindowCounter, [AtomicU64; 7]> =
    Limiter::counter(constant!(SlidingWindowCounter::new(QUOTA, 6)));
static LOG: Limiter<SlidingWindowLog, [AtomicU64; 3]> =
    Limiter::log(constant!(SlidingWindowLog::new(QUOTA)));

/// Two of three calls are allowed, a refund makes room for one more, and debt for none.
fn holds_two<P: Protocol, R: AsRef<[AtomicU64]>>(limiter: &Limiter<P, R>) -> bool {
    let now = Timestamp::from_secs(1_700_000_000);
    let decide = || limiter.decide(Cost::ONE, now).is_allow();
    let two = decide() && decide() && !decide();
    limiter.refund(Cost::ONE, now, now);
    let again = decide() && !decide();
    limiter.charge(Cost::ONE, now);
    two && again && !limiter.peek(Cost::ONE, now).is_allow()
}

fn keyed_holds_two(lines: &[Line], tally: &Tally) -> bool {
    let bucket = constant!(TokenBucket::new(QUOTA));
    let Ok(table) = Table::new(bucket, Borrowed::new(lines, &[], tally)) else { return false };
    let (key, now) = (Key::from_hash(0x9e37_79b9_7f4a_7c15), Timestamp::from_secs(1_700_000_000));
    let decide = || table.decide(key, Cost::ONE, now).is_allow();
    decide() && decide() && !decide()
}

#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    let lines = [const { Line::new() }; 4];
    let right = holds_two(&BUCKET)
        && holds_two(&WINDOW)
        && holds_two(&COUNTER)
        && holds_two(&LOG)
        && keyed_holds_two(&lines, &Tally::new());
    exit(i32::from(!right))
}

fn exit(code: i32) -> ! {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    // SAFETY: exit_group(code), which does not return.
    unsafe {
        core::arch::asm!("syscall", in("rax") 231, in("rdi") code, options(noreturn))
    }
    #[cfg(all(target_arch = "aarch64", target_os = "linux"))]
    // SAFETY: exit_group(code), which does not return.
    unsafe {
        core::arch::asm!("svc 0", in("x8") 94, in("x0") code, options(noreturn))
    }
}
