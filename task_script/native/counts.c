// Count the words of UTF-8 text with the rules of `Counts` in counts.py, and merge runs with those of `merge_runs` in
// merging.py. compiled.py calls this library, on Linux.
//
// Each word has a record: {count: 8 bytes, size: 4 bytes, the word}. The records are in one buffer, one after the
// other. A hash table of slots finds them. A slot contains the hash of its word, so the table can grow without reading
// the records, and words with different hashes are never compared.
//
// Most of the time is waiting for memory. So words are looked up in batches: first prefetch the slots of all words,
// then their records, then count.
//
// A function that returns an int returns 0, or -1 if memory cannot be allocated. After -1, the counts can only be freed.

#include <stddef.h>
#include <stdint.h>

// These declarations replace the headers of a C library. So the library needs no version of glibc or musl, and uses the
// one that Python has loaded.
int memcmp(const void *, const void *, size_t);
void *memcpy(void *, const void *, size_t);
void *mmap(void *, size_t, int, int, int, long);
void *mremap(void *, size_t, size_t, int, ...);
int munmap(void *, size_t);
void qsort(void *, size_t, size_t, int (*)(const void *, const void *));

typedef uint8_t byte;

// A record at offset 0 would look like an empty slot.
enum { MIN_BITS = 12, BATCH = 64, HEADER_BYTES = 12, FIRST_RECORD = 1 };

// Number of bytes of lines that are enough for one call.
enum { LINES_BYTES = 64 * 1024 };

typedef struct {
    byte *bytes;
    uint64_t size, capacity;
} Buffer;

typedef struct {
    uint32_t hash;
    uint32_t record; // Offset of the record. 0 in an empty slot.
} Slot;

typedef struct {
    const byte *word;
    uint64_t prefix; // The first 8 bytes of the word. A shorter word is padded with zero bytes.
    uint64_t count;
    uint32_t size;
    uint32_t hash;
    size_t slot;
} Word;

typedef struct {
    uint64_t order; // The first 8 bytes of the word, as a number that orders words like their bytes.
    const byte *record;
} Sorted;

typedef struct {
    // compiled.py reads these four fields.
    uint64_t words, distinct;
    uint64_t size_bytes; // Memory of slots and records during the next growth of the table.
    Buffer output;       // Records or lines that the last call returned.
    Buffer records;
    Buffer pending; // The last token of the text, which may continue in the next text.
    uint64_t seed;
    Slot *slots;
    unsigned bits; // The table has 2 ** bits slots.
    Sorted *sorted;     // The words in order, while `counts_lines` returns them.
    size_t sorted_next; // The first of them that was not returned.
    size_t batch_size;
    Word batch[BATCH];
} Counts;

static uint64_t load64(const byte *from) {
    uint64_t value;
    memcpy(&value, from, 8);
    return value;
}

static uint32_t load32(const byte *from) {
    uint32_t value;
    memcpy(&value, from, 4);
    return value;
}

// ---- Memory
//
// Memory comes directly from the kernel. A C library would copy buffers that grow, and keep freed memory.

// Return zeroed memory, or NULL.
static void *allocate(size_t size) {
    enum { READ_WRITE = 1 | 2, PRIVATE_ANONYMOUS = 2 | 0x20 }; // Source: Linux, include/uapi/asm-generic/mman-common.h
    void *memory = mmap(NULL, size, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0);
    return memory == (void *)-1 ? NULL : memory;
}

static void release(void *memory, size_t size) {
    if (memory)
        munmap(memory, size);
}

static int reserve(Buffer *buffer, size_t wanted) {
    enum { MIN_GROWTH = 64 * 1024, MAY_MOVE = 1 }; // Source: Linux, include/uapi/linux/mman.h
    if (wanted <= buffer->capacity)
        return 0;
    size_t capacity = buffer->capacity + buffer->capacity / 2 + MIN_GROWTH;
    capacity = capacity < wanted ? wanted : capacity;
    void *memory = buffer->bytes ? mremap(buffer->bytes, buffer->capacity, capacity, MAY_MOVE) : allocate(capacity);
    if (!memory || memory == (void *)-1)
        return -1;
    buffer->bytes = memory;
    buffer->capacity = capacity;
    return 0;
}

static int append(Buffer *buffer, const void *bytes, size_t size) {
    // 8 extra bytes, so that load64 can read at the start of the last word.
    if (reserve(buffer, buffer->size + size + 8))
        return -1;
    memcpy(buffer->bytes + buffer->size, bytes, size);
    buffer->size += size;
    return 0;
}

// ---- Hash table

static size_t slots_bytes(const Counts *counts) { return sizeof(Slot) << counts->bits; }

static Slot *slot_at(const Counts *counts, size_t place) {
    return &counts->slots[place & (((size_t)1 << counts->bits) - 1)]; // The table is circular.
}

static size_t home_slot(const Counts *counts, uint32_t hash) { return hash >> (32 - counts->bits); }

static uint64_t mix(uint64_t value) {
    unsigned __int128 product = (unsigned __int128)value * 0x9e3779b97f4a7c15; // 2 ** 64 / golden ratio
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint32_t hash_of(const byte *word, size_t size, uint64_t prefix, uint64_t seed) {
    uint64_t hash = mix(seed ^ prefix) + size;
    for (size_t at = 8; at < size; at += 8)
        hash = mix(hash ^ load64(word + (at + 8 < size ? at : size - 8)));
    return (uint32_t)(hash >> 32);
}

// Return the first 8 bytes of a word, padded with zero bytes. Read nothing at or after `end`.
static uint64_t prefix_of(const byte *word, size_t size, const byte *end) {
    uint64_t prefix = 0;
    if (end - word >= 8)
        return size < 8 ? load64(word) & (((uint64_t)1 << 8 * size) - 1) : load64(word);
    memcpy(&prefix, word, size);
    return prefix;
}

// Order words by their bytes, which is the order of their code points.
static int order_words(const byte *a, size_t size_a, const byte *b, size_t size_b) {
    int bytes = memcmp(a, b, size_a < size_b ? size_a : size_b);
    return bytes ? bytes : size_a < size_b ? -1 : size_a > size_b;
}

static int grow(Counts *counts) {
    Slot *old = counts->slots, *slots = allocate(2 * slots_bytes(counts));
    size_t old_bytes = slots_bytes(counts);
    if (!slots)
        return -1;
    counts->slots = slots;
    counts->bits++;
    for (const Slot *from = old; from < old + old_bytes / sizeof(Slot); from++) {
        size_t place = home_slot(counts, from->hash);
        while (from->record && slot_at(counts, place)->record)
            place++;
        if (from->record)
            *slot_at(counts, place) = *from;
    }
    release(old, old_bytes);
    return 0;
}

static int add_record(Counts *counts, Slot *slot, const Word *word) {
    size_t record = counts->records.size;
    if (record > UINT32_MAX || append(&counts->records, &word->count, 8) || append(&counts->records, &word->size, 4) ||
        append(&counts->records, word->word, word->size))
        return -1;
    counts->distinct++;
    *slot = (Slot){word->hash, (uint32_t)record};
    return 0;
}

static int is_record_of(const byte *record, const Word *word) {
    if (load32(record + 8) != word->size)
        return 0;
    if (word->size <= 8)
        return prefix_of(record + HEADER_BYTES, word->size, record + HEADER_BYTES + 8) == word->prefix;
    return !memcmp(record + HEADER_BYTES, word->word, word->size);
}

static int count_batch(Counts *counts) {
    Word *end = counts->batch + counts->batch_size;
    // Keep the table at most three quarters full.
    while ((counts->distinct + counts->batch_size) * 4 > (uint64_t)3 << counts->bits)
        if (grow(counts))
            return -1;
    // The slots were prefetched by add_word. Find the first slot with the hash of each word, and prefetch its record.
    for (Word *word = counts->batch; word < end; word++) {
        word->slot = home_slot(counts, word->hash);
        while (slot_at(counts, word->slot)->record && slot_at(counts, word->slot)->hash != word->hash)
            word->slot++;
        __builtin_prefetch(counts->records.bytes + slot_at(counts, word->slot)->record);
    }
    for (Word *word = counts->batch; word < end; word++) {
        Slot *slot = slot_at(counts, word->slot);
        while (slot->record && (slot->hash != word->hash || !is_record_of(counts->records.bytes + slot->record, word)))
            slot = slot_at(counts, ++word->slot);
        if (slot->record) {
            byte *record = counts->records.bytes + slot->record;
            uint64_t count = load64(record) + word->count;
            memcpy(record, &count, 8);
        } else if (add_record(counts, slot, word))
            return -1;
        counts->words += word->count;
    }
    counts->batch_size = 0;
    counts->size_bytes = counts->records.size + 3 * slots_bytes(counts);
    return 0;
}

// Add a word to the batch. The word must stay in place until the batch is counted. Read nothing at or after `end`.
static int add_word(Counts *counts, const byte *word, size_t size, uint64_t count, const byte *end) {
    if (size > UINT32_MAX)
        return -1;
    uint64_t prefix = prefix_of(word, size, end);
    uint32_t hash = hash_of(word, size, prefix, counts->seed);
    __builtin_prefetch(slot_at(counts, home_slot(counts, hash)));
    counts->batch[counts->batch_size++] = (Word){word, prefix, count, (uint32_t)size, hash, 0};
    return counts->batch_size == BATCH ? count_batch(counts) : 0;
}

// ---- Text

enum { SPACE = 1, MAYBE_SPACE = 2, PUNCTUATION = 4 };

// MAYBE_SPACE marks the first bytes of white space that is not ASCII. Other characters start with these bytes, too.
static const byte KIND[256] = {
    ['\t' ... '\r'] = SPACE,     [0x1c ... ' '] = SPACE,     ['!' ... '/'] = PUNCTUATION,
    [':' ... '@'] = PUNCTUATION, ['[' ... '`'] = PUNCTUATION, ['{' ... '~'] = PUNCTUATION,
    [0xc2] = MAYBE_SPACE,        [0xe1 ... 0xe3] = MAYBE_SPACE,
};

// Return the size of the white space character at `text` that is not ASCII, or 0. The set is that of `str.split`.
static size_t wide_space_size(const byte *text, const byte *end) {
    if (end - text >= 2 && text[0] == 0xc2)
        return text[1] == 0x85 || text[1] == 0xa0 ? 2 : 0; // U+0085, U+00A0
    if (end - text < 3)
        return 0;
    switch (text[0] << 16 | text[1] << 8 | text[2]) {
    case 0xe19a80:              // U+1680
    case 0xe28080 ... 0xe2808a: // U+2000 to U+200A
    case 0xe280a8 ... 0xe280a9: // U+2028, U+2029
    case 0xe280af:              // U+202F
    case 0xe2819f:              // U+205F
    case 0xe38080:              // U+3000
        return 3;
    }
    return 0;
}

static size_t space_size(const byte *text, const byte *end) {
    byte kind = KIND[*text];
    return kind & MAYBE_SPACE ? wide_space_size(text, end) : kind & SPACE;
}

// Set the highest bit of each of the 8 bytes that is at most a space (0x20) or MAYBE_SPACE, and clear all other bits.
static uint64_t mark_bytes(uint64_t bytes) {
    const uint64_t each = 0x0101010101010101, highest = 0x80 * each;
    // Adding 0x80 - n to the lower seven bits of a byte sets its highest bit if they are n or more. It never carries
    // into the next byte.
    uint64_t low = bytes & ~highest;
    uint64_t from_21 = low + (0x80 - 0x21) * each;
    uint64_t is_42 = (low + (0x80 - 0x42) * each) & ~(low + (0x80 - 0x43) * each);
    uint64_t is_61_to_63 = (low + (0x80 - 0x61) * each) & ~(low + (0x80 - 0x64) * each);
    return ((~bytes & ~from_21) | (bytes & (is_42 | is_61_to_63))) & highest;
}

static const byte *token_end(const byte *text, const byte *end) {
    for (; text < end; text++) {
        while (end - text >= 8) {
            uint64_t marks = mark_bytes(load64(text));
            text += marks ? __builtin_ctzll(marks) / 8 : 8;
            if (marks)
                break;
        }
        if (text == end || space_size(text, end))
            break;
    }
    return text;
}

static const byte *space_end(const byte *text, const byte *end) {
    for (size_t size; text < end && (size = space_size(text, end));)
        text += size;
    return text;
}

static int add_token(Counts *counts, const byte *start, const byte *stop, const byte *end) {
    while (start < stop && KIND[*start] == PUNCTUATION)
        start++;
    while (start < stop && KIND[stop[-1]] == PUNCTUATION)
        stop--;
    return start < stop ? add_word(counts, start, (size_t)(stop - start), 1, end) : 0;
}

// ---- Functions that compiled.py calls

// Return the size of the valid UTF-8 at the start of a text. A NUL byte is not valid.
size_t counts_valid_bytes(const byte *text, size_t size) {
    const uint64_t each = 0x0101010101010101, highest = 0x80 * each;
    const byte *at = text, *end = text + size;
    while (at < end) {
        byte first = *at;
        if (first && first < 0x80) {
            at++;
            while (end - at >= 8 && !((load64(at) | (load64(at) - each)) & highest))
                at += 8;
            continue;
        }
        int more = first < 0xc2 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : first < 0xf5 ? 3 : 0;
        // Reject overlong encodings, surrogates, and code points above U+10FFFF. Source: RFC 3629, section 4
        byte lowest = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
        byte highest_second = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
        if (!more || end - at <= more || at[1] < lowest || at[1] > highest_second)
            break;
        if ((more > 1 && at[2] >> 6 != 2) || (more > 2 && at[3] >> 6 != 2))
            break;
        at += more + 1;
    }
    return (size_t)(at - text);
}

// Count the words of a text of complete characters. Its last token may continue in the next text, so end the file with
// white space.
int counts_add_text(Counts *counts, const byte *text, size_t size) {
    const byte *end = text + size;
    if (counts->pending.size) {
        const byte *stop = token_end(text, end);
        if (append(&counts->pending, text, (size_t)(stop - text)))
            return -1;
        if (stop == end)
            return 0;
        text = stop;
        stop = counts->pending.bytes + counts->pending.size;
        if (add_token(counts, counts->pending.bytes, stop, stop))
            return -1;
    }
    for (;;) {
        text = space_end(text, end);
        const byte *stop = token_end(text, end);
        if (stop == end)
            break;
        if (add_token(counts, text, stop, end))
            return -1;
        text = stop;
    }
    if (count_batch(counts))
        return -1;
    counts->pending.size = 0;
    return append(&counts->pending, text, (size_t)(end - text));
}

static int output_record(Counts *counts, const byte *record) {
    return append(&counts->output, record, HEADER_BYTES + load32(record + 8));
}

// Order records by descending count, then by the bytes of the words, which is the order of their code points.
static int order(const void *left, const void *right) {
    const byte *a = *(const byte *const *)left, *b = *(const byte *const *)right;
    uint64_t count_a = load64(a), count_b = load64(b);
    uint32_t size_a = load32(a + 8), size_b = load32(b + 8);
    if (count_a != count_b)
        return count_a > count_b ? -1 : 1;
    return order_words(a + HEADER_BYTES, size_a, b + HEADER_BYTES, size_b);
}

// Output the records of the most frequent words, in order. `wanted` must be at least 1.
int counts_top(Counts *counts, size_t wanted) {
    size_t size = 0, capacity = wanted < counts->distinct / 2 ? 2 * wanted + 1 : counts->distinct + 1;
    const byte *end = counts->records.bytes + counts->records.size;
    const byte **top = allocate(capacity * sizeof *top), *last = NULL;
    int failed = !top;
    counts->output.size = 0;
    for (const byte *record = counts->records.bytes + FIRST_RECORD; top && record < end;) {
        if (!last || order(&record, &last) < 0)
            top[size++] = record;
        if (size == capacity) {
            qsort(top, size, sizeof *top, order);
            size = wanted;
            last = top[size - 1];
        }
        record += HEADER_BYTES + load32(record + 8);
    }
    if (top)
        qsort(top, size, sizeof *top, order);
    for (size_t i = 0; i < size && i < wanted && !failed; i++)
        failed = output_record(counts, top[i]);
    release(top, capacity * sizeof *top);
    return failed ? -1 : 0;
}

// Append the line of a word.
static int append_line(Buffer *lines, const byte *word, size_t size, uint64_t count) {
    byte end[24], *digits = end + sizeof end;
    *--digits = '\n';
    do
        *--digits = (byte)('0' + count % 10);
    while (count /= 10);
    *--digits = '\t';
    return append(lines, word, size) || append(lines, digits, (size_t)(end + sizeof end - digits)) ? -1 : 0;
}

// Order words with the same first 8 bytes.
static int order_sorted(const void *left, const void *right) {
    const byte *a = ((const Sorted *)left)->record, *b = ((const Sorted *)right)->record;
    return order_words(a + HEADER_BYTES, load32(a + 8), b + HEADER_BYTES, load32(b + 8));
}

// Sort by one byte of `order`, stably, into another array, and return it. If all words have the same byte, return the
// same array.
static Sorted *sort_by_byte(Sorted *from, Sorted *to, size_t count, unsigned shift) {
    size_t starts[257] = {0};
    for (size_t i = 0; i < count; i++)
        starts[(from[i].order >> shift & 0xff) + 1]++;
    if (count && starts[(from[0].order >> shift & 0xff) + 1] == count)
        return from;
    for (size_t value = 0; value < 256; value++)
        starts[value + 1] += starts[value];
    for (size_t i = 0; i < count; i++)
        to[starts[from[i].order >> shift & 0xff]++] = from[i];
    return to;
}

// Sort the words. The table of slots is released, because its memory is needed.
static int sort(Counts *counts) {
    size_t count = counts->distinct, bytes = (count + 1) * sizeof(Sorted);
    release(counts->slots, slots_bytes(counts));
    counts->slots = NULL;
    Sorted *words = counts->sorted = allocate(bytes), *other = allocate(bytes);
    if (!words || !other) {
        release(other, bytes);
        return -1;
    }
    const byte *record = counts->records.bytes + FIRST_RECORD, *end = counts->records.bytes + counts->records.size;
    for (size_t i = 0; i < count; i++) {
        uint32_t size = load32(record + 8);
        words[i] = (Sorted){__builtin_bswap64(prefix_of(record + HEADER_BYTES, size, end)), record};
        record += HEADER_BYTES + size;
    }
    for (unsigned shift = 0; shift < 64; shift += 8)
        if (sort_by_byte(words, other, count, shift) == other) {
            counts->sorted = other;
            other = words;
            words = counts->sorted;
        }
    release(other, bytes);
    for (size_t start = 0, stop; start < count; start = stop) {
        for (stop = start + 1; stop < count && words[stop].order == words[start].order;)
            stop++;
        if (stop - start > 1)
            qsort(words + start, stop - start, sizeof *words, order_sorted);
    }
    counts->sorted_next = 0;
    return 0;
}

// Output the next lines of the run of all words, or nothing at the end. Until then, no words can be added; and after
// that, only `counts_clear` can be called.
int counts_lines(Counts *counts) {
    counts->output.size = 0;
    if (!counts->sorted && sort(counts))
        return -1;
    while (counts->sorted_next < counts->distinct && counts->output.size < LINES_BYTES) {
        const byte *record = counts->sorted[counts->sorted_next++].record;
        if (append_line(&counts->output, record + HEADER_BYTES, load32(record + 8), load64(record)))
            return -1;
    }
    return 0;
}

static void release_tables(Counts *counts) {
    release(counts->slots, slots_bytes(counts));
    release(counts->sorted, (counts->distinct + 1) * sizeof *counts->sorted);
    counts->slots = NULL;
    counts->sorted = NULL;
}

// Delete all words, but keep the pending token.
int counts_clear(Counts *counts) {
    release_tables(counts);
    counts->bits = MIN_BITS;
    counts->slots = allocate(slots_bytes(counts));
    counts->words = counts->distinct = counts->size_bytes = 0;
    counts->records.size = FIRST_RECORD;
    return counts->slots && !reserve(&counts->records, FIRST_RECORD) ? 0 : -1;
}

void counts_free(Counts *counts) {
    release_tables(counts);
    release(counts->records.bytes, counts->records.capacity);
    release(counts->pending.bytes, counts->pending.capacity);
    release(counts->output.bytes, counts->output.capacity);
    release(counts, sizeof *counts);
}

// Return empty counts, or NULL. Without knowing the seed, nobody can write a text of words with equal hashes.
Counts *counts_new(uint64_t seed) {
    Counts *counts = allocate(sizeof *counts);
    if (!counts)
        return NULL;
    counts->seed = seed;
    if (!counts_clear(counts))
        return counts;
    counts_free(counts);
    return NULL;
}

// ---- Merging
//
// Runs are merged with a tree of losers: a leaf for each run, and in each inner node the run that lost against the
// winner of the other subtree. To replace the winner's word, only the nodes above its leaf are compared.

typedef struct {
    const byte *next, *end; // Lines that were not parsed.
    const byte *word;       // The word of the last line that was parsed.
    size_t size;
    uint64_t order; // As in `Sorted`.
    uint64_t count;
    int ended;
} Run;

typedef struct {
    // compiled.py reads these fields, and sets `minimum`.
    uint64_t words, distinct;
    uint64_t run;     // The run that needs more lines, or that is not valid.
    uint64_t minimum; // Lines with at least this count are appended to `top`.
    Buffer lines, top;
    int keep_lines; // Whether all lines are appended to `lines`.
    Buffer word;    // The word whose counts are being added. It is empty at the start.
    uint64_t count;
    size_t runs_count, winner;
    uint32_t *losers;
    Run *runs;
} Merge;

enum { DONE, NEEDS_LINES, FULL, INVALID, TOO_LARGE };

static const uint64_t MAX_COUNT = INT64_MAX;

static int is_before(const Run *a, const Run *b) {
    if (a->ended || b->ended)
        return !a->ended;
    return a->order != b->order ? a->order < b->order : order_words(a->word, a->size, b->word, b->size) < 0;
}

// White space of `bytes.split`.
static int is_space(byte at) { return at == ' ' || (at >= '\t' && at <= '\r'); }

// Parse the next line, and return whether it is valid.
static int parse_line(Run *run) {
    const byte *at = run->word = run->next;
    while (!is_space(*at))
        at++;
    run->size = (size_t)(at - run->word);
    if (!run->size || *at++ != '\t' || *at == '0')
        return 0;
    for (run->count = 0; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(run->count, 10, &run->count) ||
            __builtin_add_overflow(run->count, (uint64_t)(*at - '0'), &run->count))
            return 0;
    run->order = __builtin_bswap64(prefix_of(run->word, run->size, run->end));
    run->next = at + 1;
    return run->count && run->count <= MAX_COUNT && *at == '\n';
}

static int end_word(Merge *merge) {
    const Buffer *word = &merge->word;
    if (!word->size)
        return DONE;
    merge->distinct++;
    merge->words += merge->count;
    if (merge->words > MAX_COUNT)
        return TOO_LARGE;
    if (merge->keep_lines && append_line(&merge->lines, word->bytes, word->size, merge->count))
        return -1;
    return merge->count >= merge->minimum ? append_line(&merge->top, word->bytes, word->size, merge->count) : DONE;
}

// Return why the merge stops. `lines` and `top` are complete after FULL and DONE. After the other results, the merge
// can only be freed.
int merge_next(Merge *merge) {
    if (merge->lines.size >= LINES_BYTES || merge->top.size >= LINES_BYTES)
        merge->lines.size = merge->top.size = 0;
    while (merge->lines.size < LINES_BYTES && merge->top.size < LINES_BYTES) {
        // The last word of the winner has been counted.
        Run *run = &merge->runs[merge->winner];
        merge->run = merge->winner;
        if (!run->ended && run->next == run->end)
            return NEEDS_LINES;
        if (!run->ended &&
            (!parse_line(run) || order_words(run->word, run->size, merge->word.bytes, merge->word.size) <= 0))
            return INVALID;
        for (size_t node = (merge->winner + merge->runs_count) / 2; node; node /= 2)
            if (is_before(&merge->runs[merge->losers[node]], &merge->runs[merge->winner])) {
                uint32_t loser = (uint32_t)merge->winner;
                merge->winner = merge->losers[node];
                merge->losers[node] = loser;
            }
        run = &merge->runs[merge->winner];
        if (run->ended || run->size != merge->word.size || memcmp(run->word, merge->word.bytes, run->size)) {
            int status = end_word(merge);
            if (status || run->ended)
                return status;
            merge->count = merge->word.size = 0;
            if (append(&merge->word, run->word, run->size))
                return -1;
        }
        merge->count += run->count; // At most twice `MAX_COUNT`.
        if (merge->count > MAX_COUNT)
            return TOO_LARGE;
    }
    return FULL;
}

// Pass the next complete lines of the run `run` to the merge, or nothing at its end. They must stay in place.
void merge_feed(Merge *merge, const byte *lines, size_t size) {
    Run *run = &merge->runs[merge->run];
    run->next = lines;
    run->end = lines + size;
    run->ended = !size;
}

void merge_free(Merge *merge) {
    release(merge->lines.bytes, merge->lines.capacity);
    release(merge->top.bytes, merge->top.capacity);
    release(merge->word.bytes, merge->word.capacity);
    release(merge->losers, merge->runs_count * sizeof *merge->losers);
    release(merge->runs, merge->runs_count * sizeof *merge->runs);
    release(merge, sizeof *merge);
}

// Return the run of the first leaf below a node. At the start, all words are empty, so it is the winner there.
static size_t first_run(const Merge *merge, size_t node) {
    while (node < merge->runs_count)
        node *= 2;
    return node - merge->runs_count;
}

// Return a merge of at least one run, or NULL.
Merge *merge_new(size_t runs_count, int keep_lines) {
    Merge *merge = allocate(sizeof *merge);
    if (!merge)
        return NULL;
    merge->keep_lines = keep_lines;
    merge->runs_count = runs_count;
    merge->losers = allocate(runs_count * sizeof *merge->losers);
    merge->runs = allocate(runs_count * sizeof *merge->runs);
    if (!merge->losers || !merge->runs || reserve(&merge->word, 1)) {
        merge_free(merge);
        return NULL;
    }
    merge->winner = first_run(merge, 1);
    for (size_t node = 1; node < runs_count; node++)
        merge->losers[node] = (uint32_t)first_run(merge, 2 * node + 1);
    return merge;
}
