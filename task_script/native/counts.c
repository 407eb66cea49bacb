// Count the words of UTF-8 text, with the rules of `Counts` in counts.py. compiled.py calls this library, on Linux.
//
// Each word has a record: {count: 8 bytes, size: 4 bytes, the word}. The records are in one buffer, one after the
// other. A hash table of slots finds them. A slot contains the hash of its word, so the table can grow without reading
// the records, and words with different hashes are never compared. The slots are in the order of the hashes. So the
// words whose hashes have the same first byte (a part) are next to each other.
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

// 2 ** PART_BITS is `PARTS` of counts.py. A record at offset 0 would look like an empty slot.
enum { MIN_BITS = 12, PART_BITS = 8, BATCH = 64, HEADER_BYTES = 12, FIRST_RECORD = 1 };

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
    // compiled.py reads these four fields.
    uint64_t words, distinct;
    uint64_t size_bytes; // Memory of slots and records during the next growth of the table.
    Buffer output;       // Records that the last call returned.
    Buffer records;
    Buffer pending; // The last token of the text, which may continue in the next text.
    uint64_t seed;
    Slot *slots;
    unsigned bits; // The table has 2 ** bits slots.
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

// Add the counts in records.
int counts_add_records(Counts *counts, const byte *records, size_t size) {
    for (const byte *end = records + size; records < end; records += HEADER_BYTES + load32(records + 8))
        if (add_word(counts, records + HEADER_BYTES, load32(records + 8), load64(records), end))
            return -1;
    return count_batch(counts);
}

static int output_record(Counts *counts, const byte *record) {
    return append(&counts->output, record, HEADER_BYTES + load32(record + 8));
}

// Output the records of the words whose hashes start with the byte `part`.
int counts_part(Counts *counts, unsigned part) {
    unsigned shift = counts->bits - PART_BITS;
    size_t place = (size_t)part << shift, stop = ((size_t)part + 1) << shift;
    counts->output.size = 0;
    // A word whose slot was occupied is in a later slot, possibly behind the slots of the part. No slot between them
    // is empty.
    for (;; place++) {
        const Slot *slot = slot_at(counts, place);
        if (!slot->record && place >= stop)
            return 0;
        if (slot->record && slot->hash >> (32 - PART_BITS) == part &&
            output_record(counts, counts->records.bytes + slot->record))
            return -1;
    }
}

// Order records by descending count, then by the bytes of the words, which is the order of their code points.
static int order(const void *left, const void *right) {
    const byte *a = *(const byte *const *)left, *b = *(const byte *const *)right;
    uint64_t count_a = load64(a), count_b = load64(b);
    uint32_t size_a = load32(a + 8), size_b = load32(b + 8);
    if (count_a != count_b)
        return count_a > count_b ? -1 : 1;
    int bytes = memcmp(a + HEADER_BYTES, b + HEADER_BYTES, size_a < size_b ? size_a : size_b);
    return bytes ? bytes : size_a < size_b ? -1 : size_a > size_b;
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

// Delete all words, but keep the pending token.
int counts_clear(Counts *counts) {
    release(counts->slots, slots_bytes(counts));
    counts->bits = MIN_BITS;
    counts->slots = allocate(slots_bytes(counts));
    counts->words = counts->distinct = counts->size_bytes = 0;
    counts->records.size = FIRST_RECORD;
    return counts->slots && !reserve(&counts->records, FIRST_RECORD) ? 0 : -1;
}

void counts_free(Counts *counts) {
    release(counts->slots, slots_bytes(counts));
    release(counts->records.bytes, counts->records.capacity);
    release(counts->pending.bytes, counts->pending.capacity);
    release(counts->output.bytes, counts->output.capacity);
    release(counts, sizeof *counts);
}

// Return empty counts, or NULL. With equal seeds, each word is in the same part. Without knowing the seed, nobody can
// write a text of words with equal hashes.
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
