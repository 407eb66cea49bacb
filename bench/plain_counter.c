// Count the top words of a file in the plainest fast way: a hash table of the words' bytes. It follows the task
// script's rules for white space and punctuation, but takes any bytes for text, and gives the words of a tie in any
// order. Usage: plain_counter FILE.

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
static size_t room = 1 << 16, distinct, words;

static void *checked(void *memory) {
    if (!memory) {
        fputs("no memory\n", stderr);
        exit(1);
    }
    return memory;
}

// Words are copied into large pieces of memory, one after the other.
static char *kept(const char *word, size_t size) {
    static char *piece;
    static size_t left;
    if (size > left) {
        left = size > 1 << 20 ? size : 1 << 20;
        piece = checked(malloc(left));
    }
    char *copy = memcpy(piece, word, size);
    piece += size;
    left -= size;
    return copy;
}

static void grow(void) {
    Entry *old = entries;
    size_t old_room = room;
    room *= 2;
    entries = checked(calloc(room, sizeof(Entry)));
    for (size_t from = 0; from < old_room; from++) {
        if (!old[from].word)
            continue;
        size_t to = old[from].hash & (room - 1);
        while (entries[to].word)
            to = (to + 1) & (room - 1);
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
    for (size_t at = hash & (room - 1);; at = (at + 1) & (room - 1)) {
        Entry *entry = &entries[at];
        if (!entry->word) {
            *entry = (Entry){kept(word, size), (uint32_t)size, hash, 1};
            if (++distinct > room / 4 * 3)
                grow();
            return;
        }
        if (entry->hash == hash && entry->size == size && !memcmp(entry->word, word, size)) {
            entry->count++;
            return;
        }
    }
}

// How many bytes of white space stand here.
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

static int by_count(const void *left, const void *right) {
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
    entries = checked(calloc(room, sizeof(Entry)));
    // What follows the last white space of a block is moved before the next one.
    size_t rest = 0, buffer_room = 2 * BLOCK;
    unsigned char *buffer = checked(malloc(buffer_room));
    for (;;) {
        if (buffer_room < rest + BLOCK)
            buffer = checked(realloc(buffer, buffer_room *= 2));
        size_t got = fread(buffer + rest, 1, BLOCK, file);
        unsigned char *text = buffer, *end = buffer + rest + got, *start = buffer;
        while (text < end) {
            size_t size = space(text, end);
            if (size) {
                count((char *)start, (size_t)(text - start));
                start = text + size;
            }
            text += size ? size : 1;
        }
        if (!got) {
            count((char *)start, (size_t)(end - start));
            break;
        }
        rest = (size_t)(end - start);
        memmove(buffer, start, rest);
    }
    size_t size = 0;
    for (size_t at = 0; at < room; at++)
        if (entries[at].word)
            entries[size++] = entries[at];
    qsort(entries, size, sizeof(Entry), by_count);
    printf("%zu %zu\n", words, distinct);
    for (size_t i = 0; i < size && i < 10; i++)
        printf("%llu %.*s\n", (unsigned long long)entries[i].count, (int)entries[i].size, entries[i].word);
    return 0;
}
