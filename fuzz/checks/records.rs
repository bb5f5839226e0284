//! Any bytes in the place of a body of many records, in each form.

use forebay::internals::ingest::records::{Place, Uncut, cut_array, cut_delimited, cut_lines};

const RECORDS_MAX: usize = 100;

/// Records stand in the body, in their order, none is empty, and there are no more than may be. What is cut by a smaller
/// bound is the same, or too many.
pub fn check(data: &[u8]) {
    for cut in [cut_lines, cut_array, cut_delimited] {
        let places = cut(data, RECORDS_MAX);
        if let Ok(places) = &places {
            check_places(places, data.len());
        }
        let fewer = cut(data, 2);
        assert!(fewer == places || fewer == Err(Uncut::TooMany));
    }
    check_lines(data);
    check_array(data);
}

fn check_places(places: &[Place], body_bytes: usize) {
    assert!(places.len() <= RECORDS_MAX);
    let mut last = 0;
    for place in places {
        assert!(last <= place.start && place.start < place.end && place.end <= body_bytes);
        last = place.end;
    }
}

/// No line end is in a line, and all that is in none is a line end.
fn check_lines(data: &[u8]) {
    let Ok(places) = cut_lines(data, RECORDS_MAX) else {
        return;
    };
    let in_lines: usize = places.iter().map(Place::len).sum();
    let others = data.len() - in_lines;
    let ends = data.iter().filter(|byte| **byte == b'\n').count();
    assert!((ends..=2 * ends).contains(&others));
    assert!(
        places
            .iter()
            .all(|place| !data[place.clone()].contains(&b'\n'))
    );
}

/// Each element is JSON by itself, and all of them are the array again.
fn check_array(data: &[u8]) {
    let Ok(places) = cut_array(data, RECORDS_MAX) else {
        return;
    };
    let elements: Vec<&[u8]> = places.iter().map(|place| &data[place.clone()]).collect();
    let again = [&b"["[..], &elements.join(&b','), b"]"].concat();
    let cut = cut_array(&again, RECORDS_MAX).expect("the same array");
    let same: Vec<&[u8]> = cut.iter().map(|place| &again[place.clone()]).collect();
    assert_eq!(same, elements);
}
