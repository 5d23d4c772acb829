//! What no policy can exceed.
//!
//! The linear relaxation of the packing problem: every container may be admitted in part, may be anywhere, and all that is to come is known; what
//! remains is that at no time more slices are held than there are. Since a slice of one container is worth as much as a slice of any other, it
//! is solved exactly by admitting everything, and at each overflow giving up slices of those that would stay longest (for intervals with a
//! common capacity: Faigle and Nawijn, 1995).
//!
//! Decides that number. Must not know policies.

use crate::node::GPUS;
use crate::stream::{Arrival, Ask};

/// The most slices of these containers that can be admitted on a node of which so many GPUs are whole.
pub fn most(arrivals: &[Arrival], whole: usize) -> u64 {
    let is_whole = |arrival: &&Arrival| matches!(arrival.ask, Ask::Whole(_));
    let slices = |gpus: usize| 8 * gpus as u64;
    let on_whole = most_of(arrivals.iter().filter(is_whole), slices(whole));
    let on_split = most_of(arrivals.iter().filter(|one| !is_whole(one)), slices(GPUS - whole));
    on_whole + on_split
}

fn most_of<'a>(arrivals: impl Iterator<Item = &'a Arrival>, capacity: u64) -> u64 {
    // Who is there, by when they go, and with how many slices.
    let mut there: Vec<(f64, u64)> = Vec::new();
    let (mut held, mut admitted) = (0, 0);
    for arrival in arrivals {
        there.retain(|(until, slices)| {
            let stays = *until > arrival.at;
            held -= if stays { 0 } else { *slices };
            stays
        });
        let slices = u64::from(arrival.slices);
        let place = there.partition_point(|(until, _)| *until < arrival.until);
        there.insert(place, (arrival.until, slices));
        held += slices;
        admitted += slices;
        while held > capacity {
            let Some((_, last)) = there.last_mut() else { break };
            let gone = (*last).min(held - capacity);
            *last -= gone;
            held -= gone;
            admitted -= gone;
            if *last == 0 {
                there.pop();
            }
        }
    }
    admitted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(at: f64, until: f64, slices: u32) -> Arrival {
        Arrival { at, until, ask: Ask::Slices(0), slices }
    }

    #[test]
    fn at_an_overflow_those_give_way_that_would_stay_longest() {
        // The node has 64 slices.
        let long = arrival(0.0, 10.0, 60);
        let short = [arrival(1.0, 2.0, 8), arrival(3.0, 4.0, 8)];
        let all = [long, short[0], short[1]];
        assert_eq!(most(&all, 0), 60 - 4 + 16, "four slices of the long one give way to both");
        assert_eq!(most(&all[..1], 0), 60);
    }

    #[test]
    fn whole_gpus_have_a_capacity_of_their_own() {
        let whole = |at: f64| Arrival { at, until: at + 1.0, ask: Ask::Whole(4), slices: 32 };
        assert_eq!(most(&[whole(0.0), whole(0.5)], 4), 32);
        assert_eq!(most(&[whole(0.0), whole(1.5)], 4), 64);
    }
}
