//! The plugin's allocator: talc, which begins in an arena that is part of the module's own memory.
//!
//! A fresh instance may serve a single event, so its first allocation counts. Rust's default allocator asks the host for
//! pages before it hands out a byte, and the host has to take them back afterwards: that costs more than everything else
//! that a small handler does. Up to `ARENA_BYTES` nothing is asked for here. What needs more grows the memory as usual,
//! and what is freed is used again: an instance that lives for many events is served as well as one that lives for one.
//!
//! With the feature `allocator` off, the plugin has Rust's default allocator, or one of its own.

use core::alloc::Layout;
use core::arch::wasm32::memory_grow;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use talc::base::Talc;
use talc::base::binning::Binning;
use talc::cell::TalcSyncCell;
use talc::source::Source;
use talc::wasm::WasmBinning;

/// Enough for the event and the answers of most handlers.
const ARENA_BYTES: usize = 64 << 10;
const PAGE_BYTES: usize = 64 << 10;
/// What talc keeps beside an allocation, generously.
const OVERHEAD_BYTES: usize = 64;

static mut ARENA: [MaybeUninit<u8>; ARENA_BYTES] = [const { MaybeUninit::uninit() }; ARENA_BYTES];

#[global_allocator]
static ALLOCATOR: TalcSyncCell<ArenaThenPages, WasmBinning> =
    TalcSyncCell::new_wasm(ArenaThenPages { arena_taken: false, pages_end: None });

#[derive(Debug)]
struct ArenaThenPages {
    arena_taken: bool,
    /// Where the last pages that were asked for end: more of them make the same heap larger.
    pages_end: Option<NonNull<u8>>,
}

// SAFETY: `acquire` uses no allocator. Nothing else uses what it claims: `ARENA` is named nowhere else in this file
// and is claimed once; pages that `memory_grow` returns are new.
unsafe impl Source for ArenaThenPages {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        if !talc.source.arena_taken {
            talc.source.arena_taken = true;
            // SAFETY: see above.
            return unsafe { talc.claim((&raw mut ARENA).cast(), ARENA_BYTES) }.map(drop).ok_or(());
        }
        let pages = (layout.size() + layout.align() + OVERHEAD_BYTES).div_ceil(PAGE_BYTES);
        let page = memory_grow::<0>(pages);
        if page == usize::MAX {
            return Err(());
        }
        let (base, bytes) = ((page * PAGE_BYTES) as *mut u8, pages * PAGE_BYTES);
        talc.source.pages_end = match talc.source.pages_end.take() {
            // SAFETY: see above; the pages follow those of the heap that ends there.
            Some(end) if end.as_ptr() == base => Some(unsafe { talc.extend(end, base.wrapping_add(bytes)) }),
            // SAFETY: see above.
            _ => unsafe { talc.claim(base, bytes) },
        };
        talc.source.pages_end.map(drop).ok_or(())
    }
}
