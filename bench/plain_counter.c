// Count the top words of a file with a plain hash table of the words' bytes. The rules for white space and punctuation
// are those of the task script. Unlike the task script, this program accepts invalid UTF-8, and prints words of equal
// count in any order. Usage: plain_counter FILE.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char *word;
    uint32_t size, hash;
    uint64_t count;
} Entry;

static Entry *entries;
static size_t capacity = 1 << 16, distinct, words;

static void *require_memory(void *memory) {
    if (!memory) {
        fputs("no memory\n", stderr);
        exit(1);
    }
    return memory;
}

// Copy a word into an arena, which grows by blocks of at least 1 MiB.
static char *copy_word(const char *word, size_t size) {
    static char *arena;
    static size_t free_size;
    if (size > free_size) {
        free_size = size > 1 << 20 ? size : 1 << 20;
        arena = require_memory(malloc(free_size));
    }
    char *copy = memcpy(arena, word, size);
    arena += size;
    free_size -= size;
    return copy;
}

static void grow(void) {
    Entry *old = entries;
    size_t old_capacity = capacity;
    capacity *= 2;
    entries = require_memory(calloc(capacity, sizeof(Entry)));
    for (size_t from = 0; from < old_capacity; from++) {
        if (!old[from].word)
            continue;
        size_t to = old[from].hash & (capacity - 1);
        while (entries[to].word)
            to = (to + 1) & (capacity - 1);
        entries[to] = old[from];
    }
    free(old);
}

static int is_punctuation(char letter) {
    return (letter >= '!' && letter <= '/') || (letter >= ':' && letter <= '@') || (letter >= '[' && letter <= '`') ||
           (letter >= '{' && letter <= '~');
}

static void count(const char *word, size_t size) {
    while (size && is_punctuation(*word))
        word++, size--;
    while (size && is_punctuation(word[size - 1]))
        size--;
    if (!size)
        return;
    words++;
    uint32_t hash = 2166136261; // FNV-1a
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)word[i]) * 16777619;
    for (size_t at = hash & (capacity - 1);; at = (at + 1) & (capacity - 1)) {
        Entry *entry = &entries[at];
        if (!entry->word) {
            *entry = (Entry){copy_word(word, size), (uint32_t)size, hash, 1};
            if (++distinct > capacity / 4 * 3)
                grow();
            return;
        }
        if (entry->hash == hash && entry->size == size && !memcmp(entry->word, word, size)) {
            entry->count++;
            return;
        }
    }
}

// Return the length in bytes of the white space character at `text`, or 0.
static size_t space(const unsigned char *text, const unsigned char *end) {
    unsigned char first = *text;
    if (first == ' ' || (first >= '\t' && first <= '\r') || (first >= 0x1c && first <= 0x1f))
        return 1;
    if (first < 0xc2)
        return 0;
    if (first == 0xc2)
        return end - text >= 2 && (text[1] == 0x85 || text[1] == 0xa0) ? 2 : 0;
    if (end - text < 3)
        return 0;
    uint32_t three = (uint32_t)first << 16 | (uint32_t)text[1] << 8 | text[2];
    int wide = three == 0xe19a80 || (three >= 0xe28080 && three <= 0xe2808a) || three == 0xe280a8 ||
               three == 0xe280a9 || three == 0xe280af || three == 0xe2819f || three == 0xe38080;
    return wide ? 3 : 0;
}

static int compare_counts(const void *left, const void *right) {
    uint64_t a = ((const Entry *)left)->count, b = ((const Entry *)right)->count;
    return a > b ? -1 : a < b;
}

int main(int argument_count, char **arguments) {
    enum { BLOCK = 64 * 1024 };
    FILE *file = argument_count == 2 ? fopen(arguments[1], "rb") : NULL;
    if (!file) {
        fputs("usage: plain_counter FILE\n", stderr);
        return 2;
    }
    entries = require_memory(calloc(capacity, sizeof(Entry)));
    // Move the incomplete word at the end of a block to the start of the buffer, before the next block.
    size_t rest_size = 0, buffer_capacity = 2 * BLOCK;
    unsigned char *buffer = require_memory(malloc(buffer_capacity));
    for (;;) {
        if (buffer_capacity < rest_size + BLOCK)
            buffer = require_memory(realloc(buffer, buffer_capacity *= 2));
        size_t read_size = fread(buffer + rest_size, 1, BLOCK, file);
        unsigned char *text = buffer, *end = buffer + rest_size + read_size, *start = buffer;
        while (text < end) {
            size_t size = space(text, end);
            if (size) {
                count((char *)start, (size_t)(text - start));
                start = text + size;
            }
            text += size ? size : 1;
        }
        if (!read_size) {
            count((char *)start, (size_t)(end - start));
            break;
        }
        rest_size = (size_t)(end - start);
        memmove(buffer, start, rest_size);
    }
    size_t size = 0;
    for (size_t at = 0; at < capacity; at++)
        if (entries[at].word)
            entries[size++] = entries[at];
    qsort(entries, size, sizeof(Entry), compare_counts);
    printf("%zu %zu\n", words, distinct);
    for (size_t i = 0; i < size && i < 10; i++)
        printf("%llu %.*s\n", (unsigned long long)entries[i].count, (int)entries[i].size, entries[i].word);
    return 0;
}
