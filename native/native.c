/* snapvault._native: the loops of snapvault that are worth C.
 *
 *   cuts           the scan of the chunker                    (docs/format/chunking.md)
 *   sort_records   sort a table of fixed-width records        (the blob index)
 *   find_records   look ids up in such a table
 *   mark_records   remember which records were asked for
 *   blob_records   the records of the blobs of a segment
 *   add_marked     bytes of the blobs that were marked, by segment
 *   mark_spare     remember which records another table makes superfluous
 *   renumber       move the segments of such records
 *   same_bytes     compare two buffers                        (a segment and what it decompresses to)
 *   files.c        many files of a folder at a time
 *
 * Every function has a plain-Python twin with the same results; tests hold the two together. Only the limited API
 * of Python 3.11 is used, so one build serves every later Python. The GIL is released around every loop, and no
 * loop trusts what another thread may change meanwhile: a buffer that is written to during a call gives a wrong
 * result or an error, never an access out of bounds.
 */
#include "native.h"

/* ---------------------------------------------------------------------------------------------------- chunker */

enum { WINDOW = 64, TABLE_BYTES = 2048, SKEW = 2 };

typedef struct {
    uint64_t table[256];
    uint64_t strict, loose; /* a fingerprint below the limit is a cut: strict before the average, loose after */
    size_t minimum, average, maximum;
} Kernel;

static uint64_t little_endian_64(const uint8_t *p)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = (value << 8) | p[i];
    return value;
}

static uint64_t big_endian_64(const uint8_t *p)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = (value << 8) | p[i];
    return value;
}

/* Compilers fold the load of a table entry into the addition, which costs a second cycle in the chain from one
 * fingerprint to the next. Held in a register, the entry lets shift and addition become one instruction: measured
 * 3.0 instead of 1.5 GB/s with clang, 3.0 instead of 2.7 with gcc. */
#if defined(__GNUC__)
#define IN_REGISTER(value) __asm__("" : "+r"(value))
#else
#define IN_REGISTER(value) (void)(value)
#endif

static inline uint64_t roll(const uint64_t *table, uint64_t fingerprint, uint8_t byte)
{
    uint64_t entry = table[byte];
    IN_REGISTER(entry);
    return (fingerprint << 1) + entry;
}

/* The first end in (from, to] whose fingerprint is below the limit, or 0. *fingerprint is that of `from` on entry
 * and that of the last byte read on return. */
static size_t scan(const uint64_t *table, const uint8_t *data, size_t from, size_t to, uint64_t limit,
                   uint64_t *fingerprint)
{
    uint64_t h = *fingerprint;
    size_t i = from;
    for (; i + 4 <= to; i += 4) {
        uint64_t h1 = roll(table, h, data[i]);
        if (h1 < limit)
            return i + 1;
        uint64_t h2 = roll(table, h1, data[i + 1]);
        if (h2 < limit)
            return i + 2;
        uint64_t h3 = roll(table, h2, data[i + 2]);
        if (h3 < limit)
            return i + 3;
        h = roll(table, h3, data[i + 3]);
        if (h < limit)
            return i + 4;
    }
    for (; i < to; i++) {
        h = roll(table, h, data[i]);
        if (h < limit)
            return i + 1;
    }
    *fingerprint = h;
    return 0;
}

/* The length of the chunk at the start of `data`, or 0 where `size` bytes do not decide it. */
static size_t chunk_length(const Kernel *k, const uint8_t *data, size_t size)
{
    if (size < k->minimum)
        return 0;
    size_t end = size < k->maximum ? size : k->maximum;
    size_t turn = end < k->average - 1 ? end : k->average - 1; /* the last length that the strict limit judges */
    uint64_t h = 0;
    for (size_t i = k->minimum - WINDOW; i < k->minimum - 1; i++)
        h = roll(k->table, h, data[i]);
    size_t cut = scan(k->table, data, k->minimum - 1, turn, k->strict, &h);
    if (!cut && turn < end)
        cut = scan(k->table, data, turn, end, k->loose, &h);
    if (!cut && end == k->maximum)
        cut = end;
    return cut;
}

static size_t cut_all(const Kernel *k, const uint8_t *data, size_t size, int final, uint64_t *ends)
{
    size_t count = 0, start = 0;
    while (start < size) {
        size_t length = chunk_length(k, data + start, size - start);
        if (!length) {
            if (!final)
                break;
            length = size - start;
        }
        start += length;
        ends[count++] = start;
    }
    return count;
}

static int kernel_init(Kernel *k, const Py_buffer *table, Py_ssize_t minimum, Py_ssize_t average, Py_ssize_t maximum)
{
    if (table->len != TABLE_BYTES || minimum < WINDOW || average <= minimum || maximum <= average ||
        (average & (average - 1))) {
        PyErr_SetString(PyExc_ValueError, "cuts: bad table or sizes");
        return -1;
    }
    for (int i = 0; i < 256; i++)
        k->table[i] = little_endian_64((const uint8_t *)table->buf + 8 * i);
    int bits = 0;
    while (((size_t)1 << bits) < (size_t)average)
        bits++;
    if (bits + SKEW > 63) {
        PyErr_SetString(PyExc_ValueError, "cuts: average too large");
        return -1;
    }
    k->strict = (uint64_t)1 << (64 - bits - SKEW);
    k->loose = (uint64_t)1 << (64 - bits + SKEW);
    k->minimum = (size_t)minimum;
    k->average = (size_t)average;
    k->maximum = (size_t)maximum;
    return 0;
}

static PyObject *list_of_ends(const uint64_t *ends, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *end = PyLong_FromUnsignedLongLong(ends[i]);
        if (!end || PyList_SetItem(list, (Py_ssize_t)i, end) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *native_cuts(PyObject *module, PyObject *args)
{
    Py_buffer data, table;
    Py_ssize_t minimum, average, maximum;
    int final;
    PyObject *result = NULL;
    Kernel kernel;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*nnnp:cuts", &data, &table, &minimum, &average, &maximum, &final))
        return NULL;
    if (kernel_init(&kernel, &table, minimum, average, maximum) == 0) {
        /* Every chunk but the last has at least the minimum, so this is room for all. */
        uint64_t *ends = malloc(((size_t)data.len / kernel.minimum + 1) * sizeof *ends);
        if (ends) {
            size_t count;
            Py_BEGIN_ALLOW_THREADS
            count = cut_all(&kernel, data.buf, (size_t)data.len, final, ends);
            Py_END_ALLOW_THREADS
            result = list_of_ends(ends, count);
            free(ends);
        } else
            PyErr_NoMemory();
    }
    PyBuffer_Release(&table);
    PyBuffer_Release(&data);
    return result;
}

/* ------------------------------------------------------------------------------------------------ record tables */

enum { KEY = 32, WIDTH_MAX = 256, SMALL = 24 };

typedef struct {
    uint8_t *at;
    size_t count, depth; /* the records of this run agree in their first `depth` bytes */
} Run;

typedef struct {
    Run *runs;
    size_t used, room;
} Stack;

static int push(Stack *stack, uint8_t *at, size_t count, size_t depth)
{
    if (stack->used == stack->room) {
        size_t room = stack->room ? 2 * stack->room : 1024;
        Run *runs = realloc(stack->runs, room * sizeof *runs);
        if (!runs)
            return -1;
        stack->runs = runs;
        stack->room = room;
    }
    stack->runs[stack->used++] = (Run){at, count, depth};
    return 0;
}

static void insertion_sort(uint8_t *at, size_t count, size_t width, size_t depth)
{
    uint8_t held[WIDTH_MAX];
    for (size_t i = 1; i < count; i++) {
        uint8_t *slot = at + i * width;
        if (memcmp(slot - width + depth, slot + depth, width - depth) <= 0)
            continue;
        memcpy(held, slot, width);
        do {
            memcpy(slot, slot - width, width);
            slot -= width;
        } while (slot > at && memcmp(slot - width + depth, held + depth, width - depth) > 0);
        memcpy(slot, held, width);
    }
}

/* Deals one run out by its byte at `depth`, in place: each record is carried to the next free slot of its bucket
 * until the cycle closes. -1 if another thread changed the records meanwhile. */
static int deal(const Run *run, size_t width, size_t counts[256])
{
    uint8_t held[WIDTH_MAX], swapped[WIDTH_MAX];
    uint8_t *head[256], *tail[256], *at = run->at;
    for (int b = 0; b < 256; b++) {
        head[b] = at;
        at += counts[b] * width;
        tail[b] = at;
    }
    for (int b = 0; b < 256; b++) {
        while (head[b] < tail[b]) {
            int bucket = head[b][run->depth];
            if (bucket == b) {
                head[b] += width;
                continue;
            }
            memcpy(held, head[b], width);
            do {
                if (head[bucket] >= tail[bucket])
                    return -1;
                memcpy(swapped, head[bucket], width);
                memcpy(head[bucket], held, width);
                memcpy(held, swapped, width);
                head[bucket] += width;
                bucket = held[run->depth];
            } while (bucket != b);
            memcpy(head[b], held, width);
            head[b] += width;
        }
    }
    return 0;
}

/* Radix sort from the first byte on, with a stack of our own: linear in the bytes of the table and flat in the C
 * stack whatever the records are, so that made-up ids cannot make it slow or overflow it. */
static int sort_run(Stack *stack, size_t width)
{
    Run run = stack->runs[--stack->used];
    if (run.count <= SMALL) {
        insertion_sort(run.at, run.count, width, run.depth);
        return 0;
    }
    size_t counts[256];
    for (;; run.depth++) {
        if (run.depth == width)
            return 0;
        memset(counts, 0, sizeof counts);
        for (size_t i = 0; i < run.count; i++)
            counts[run.at[i * width + run.depth]]++;
        if (counts[run.at[run.depth]] != run.count)
            break;
    }
    if (deal(&run, width, counts) < 0)
        return -1;
    uint8_t *at = run.at;
    for (int b = 0; b < 256; b++) {
        if (counts[b] > 1 && push(stack, at, counts[b], run.depth + 1) < 0)
            return -2;
        at += counts[b] * width;
    }
    return 0;
}

static int sort_table(uint8_t *table, size_t count, size_t width)
{
    Stack stack = {NULL, 0, 0};
    int failed = push(&stack, table, count, 0) < 0 ? -2 : 0;
    while (!failed && stack.used)
        failed = sort_run(&stack, width);
    free(stack.runs);
    return failed;
}

static int check_table(const Py_buffer *table, Py_ssize_t width)
{
    if (width < KEY || width > WIDTH_MAX || table->len % width) {
        PyErr_SetString(PyExc_ValueError, "a table holds whole records of 32 to 256 bytes");
        return -1;
    }
    return 0;
}

static PyObject *native_sort_records(PyObject *module, PyObject *args)
{
    Py_buffer table;
    Py_ssize_t width;
    int failed = -3;
    (void)module;
    if (!PyArg_ParseTuple(args, "w*n:sort_records", &table, &width))
        return NULL;
    if (check_table(&table, width) == 0) {
        Py_BEGIN_ALLOW_THREADS
        failed = sort_table(table.buf, (size_t)(table.len / width), (size_t)width);
        Py_END_ALLOW_THREADS
        if (failed == -2)
            PyErr_NoMemory();
        else if (failed == -1)
            PyErr_SetString(PyExc_RuntimeError, "the table was changed while it was sorted");
    }
    PyBuffer_Release(&table);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

typedef struct {
    const uint8_t *at;
    size_t count, width;
} Table;

/* The search of one key: it lies at or after `low` and not after `high`; the prefixes are those of the records
 * just outside, between which the ids are spread evenly. */
typedef struct {
    size_t low, high;
    uint64_t below, above;
} Bracket;

static void probe(const Table *t, Bracket *b, size_t at, const uint8_t *key)
{
    const uint8_t *record = t->at + at * t->width;
    if (memcmp(record, key, KEY) < 0) {
        b->low = at + 1;
        b->below = big_endian_64(record);
    } else {
        b->high = at;
        b->above = big_endian_64(record);
    }
}

/* Where the key should be if ids are uniform; inside [low, high) whatever they are. */
static size_t expected(const Bracket *b, uint64_t prefix)
{
    if (prefix <= b->below)
        return b->low;
    if (prefix >= b->above)
        return b->high - 1;
    double share = (double)(prefix - b->below) / (double)(b->above - b->below);
    size_t step = (size_t)(share * (double)(b->high - b->low));
    return step < b->high - b->low ? b->low + step : b->high - 1;
}

/* About the square root: as far as the place of one of `size` uniform ids is usually off. */
static size_t usual_error(size_t size)
{
    size_t root = 1;
    while (root < size / root)
        root *= 2;
    return root;
}

/* Index of the first record whose id is not below the key. Four rounds of interpolation, each with a second probe
 * just past the expected place so that the bracket closes from both sides; then plain halving, so that ids or keys
 * made up to defeat the interpolation cost at most eight probes more than a binary search. */
static size_t lower_bound(const Table *t, const uint8_t *key)
{
    Bracket b = {0, t->count, 0, UINT64_MAX};
    uint64_t prefix = big_endian_64(key);
    for (int round = 0; round < 4 && b.high - b.low > 8; round++) {
        size_t at = expected(&b, prefix), error = usual_error(b.high - b.low);
        probe(t, &b, at, key);
        if (b.low == at + 1) {
            if (b.high - b.low > error)
                probe(t, &b, b.low + error, key);
        } else if (b.high - b.low > error)
            probe(t, &b, b.high - error, key);
    }
    while (b.low < b.high)
        probe(t, &b, b.low + (b.high - b.low) / 2, key);
    return b.low;
}

static int64_t find(const Table *t, const uint8_t *key)
{
    size_t at = lower_bound(t, key);
    return at < t->count && memcmp(t->at + at * t->width, key, KEY) == 0 ? (int64_t)at : -1;
}

/* find, and -2 for an id that more than one record has. */
static int64_t find_single(const Table *t, const uint8_t *key)
{
    int64_t at = find(t, key);
    size_t next = (size_t)at + 1;
    return at >= 0 && next < t->count && memcmp(t->at + next * t->width, key, KEY) == 0 ? -2 : at;
}

static void store_little_endian_64(uint8_t *p, int64_t value)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)((uint64_t)value >> (8 * i));
}

static PyObject *native_find_records(PyObject *module, PyObject *args)
{
    Py_buffer table, keys;
    Py_ssize_t width;
    int single = 0;
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*ny*|p:find_records", &table, &width, &keys, &single))
        return NULL;
    int64_t (*look)(const Table *, const uint8_t *) = single ? find_single : find;
    if (check_table(&table, width) < 0)
        ;
    else if (keys.len % KEY)
        PyErr_SetString(PyExc_ValueError, "find_records: keys have 32 bytes each");
    else if ((result = PyBytes_FromStringAndSize(NULL, keys.len / KEY * 8))) {
        Table t = {table.buf, (size_t)(table.len / width), (size_t)width};
        uint8_t *out = (uint8_t *)PyBytes_AsString(result);
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < keys.len / KEY; i++)
            store_little_endian_64(out + 8 * i, look(&t, (const uint8_t *)keys.buf + KEY * i));
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&keys);
    PyBuffer_Release(&table);
    return result;
}

static PyObject *native_find_record(PyObject *module, PyObject *args)
{
    Py_buffer table, key;
    Py_ssize_t width;
    int64_t at = -2;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*ny*:find_record", &table, &width, &key))
        return NULL;
    if (check_table(&table, width) < 0)
        ;
    else if (key.len != KEY)
        PyErr_SetString(PyExc_ValueError, "find_record: a key has 32 bytes");
    else {
        /* The GIL stays: giving it up and taking it back costs more than the search. */
        Table t = {table.buf, (size_t)(table.len / width), (size_t)width};
        at = find(&t, key.buf);
    }
    PyBuffer_Release(&key);
    PyBuffer_Release(&table);
    return at < -1 ? NULL : PyLong_FromLongLong(at);
}

/* Sets a bit in the mark of every record of an id: 0 there is none, 1 the bit was not set before, 2 it was. */
static uint8_t mark(const Table *t, const uint8_t *key, uint8_t *marks, uint8_t bit)
{
    int64_t found = find(t, key);
    if (found < 0)
        return 0;
    if (marks[found] & bit) /* all of them were marked together; a long run of equal ids must not cost each time */
        return 2;
    for (size_t at = (size_t)found; at < t->count && memcmp(t->at + at * t->width, key, KEY) == 0; at++)
        marks[at] |= bit;
    return 1;
}

static PyObject *native_mark_records(PyObject *module, PyObject *args)
{
    Py_buffer table, keys, marks;
    Py_ssize_t width;
    unsigned char bit;
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*ny*w*b:mark_records", &table, &width, &keys, &marks, &bit))
        return NULL;
    if (check_table(&table, width) < 0)
        ;
    else if (keys.len % KEY || marks.len != table.len / width)
        PyErr_SetString(PyExc_ValueError, "mark_records: keys have 32 bytes each, and each record has a mark");
    else if ((result = PyBytes_FromStringAndSize(NULL, keys.len / KEY))) {
        Table t = {table.buf, (size_t)(table.len / width), (size_t)width};
        uint8_t *out = (uint8_t *)PyBytes_AsString(result);
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < keys.len / KEY; i++)
            out[i] = mark(&t, (const uint8_t *)keys.buf + KEY * i, marks.buf, bit);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&marks);
    PyBuffer_Release(&keys);
    PyBuffer_Release(&table);
    return result;
}

/* ------------------------------------------------------------------------------------------------ blob records */

/* id | number of the segment | offset in its plaintext | type and length, words in little endian. */
enum { SEGMENT_AT = KEY, RECORD = KEY + 12, LENGTH_BITS = 28 };

static void store_little_endian_32(uint8_t *p, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t little_endian_32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void fill_records(uint8_t *out, size_t count, uint32_t segment, const uint8_t *ids, const uint8_t *lengths,
                         const uint8_t *types)
{
    uint32_t offset = 0, length;
    for (size_t i = 0; i < count; i++, out += RECORD) {
        memcpy(&length, lengths + 4 * i, sizeof length);
        memcpy(out, ids + KEY * i, KEY);
        store_little_endian_32(out + SEGMENT_AT, segment);
        store_little_endian_32(out + SEGMENT_AT + 4, offset);
        store_little_endian_32(out + SEGMENT_AT + 8, (uint32_t)types[i] << LENGTH_BITS | length);
        offset += length;
    }
}

static PyObject *native_blob_records(PyObject *module, PyObject *args)
{
    unsigned int segment;
    Py_buffer ids, lengths, types;
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "Iy*y*y*:blob_records", &segment, &ids, &lengths, &types))
        return NULL;
    Py_ssize_t count = types.len;
    if (ids.len != KEY * count || lengths.len != 4 * count)
        PyErr_SetString(PyExc_ValueError, "blob_records: an id of 32 bytes, a length of 4 and a type of 1 for each");
    else if ((result = PyBytes_FromStringAndSize(NULL, RECORD * count)))
        /* The GIL stays: a segment has few blobs. */
        fill_records((uint8_t *)PyBytes_AsString(result), (size_t)count, segment, ids.buf, lengths.buf, types.buf);
    PyBuffer_Release(&types);
    PyBuffer_Release(&lengths);
    PyBuffer_Release(&ids);
    return result;
}

static PyObject *native_renumber(PyObject *module, PyObject *args)
{
    unsigned int by;
    Py_buffer table;
    int whole;
    (void)module;
    if (!PyArg_ParseTuple(args, "w*I:renumber", &table, &by))
        return NULL;
    whole = table.len % RECORD == 0;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t at = SEGMENT_AT; whole && at < table.len; at += RECORD) {
        uint8_t *word = (uint8_t *)table.buf + at;
        store_little_endian_32(word, little_endian_32(word) + by);
    }
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&table);
    if (!whole) {
        PyErr_SetString(PyExc_ValueError, "renumber: records have 44 bytes each");
        return NULL;
    }
    Py_RETURN_NONE;
}

static int add_marked(const Py_buffer *table, const uint8_t *marks, uint64_t *sums, size_t segments)
{
    const uint8_t *record = table->buf;
    for (Py_ssize_t i = 0; i < table->len / RECORD; i++, record += RECORD) {
        if (!marks[i])
            continue;
        uint32_t segment = little_endian_32(record + SEGMENT_AT);
        if (segment >= segments)
            return -1;
        sums[segment] += little_endian_32(record + SEGMENT_AT + 8) & ((1u << LENGTH_BITS) - 1);
    }
    return 0;
}

/* Records of the blob index, and a number for each segment that they may name. */
typedef struct {
    const uint8_t *at;
    size_t count;
    const uint32_t *ranks;
    size_t segments;
} Ranked;

/* 0 for a segment that is not there. */
static uint32_t rank_of(const Ranked *r, size_t record)
{
    uint32_t segment = little_endian_32(r->at + RECORD * record + SEGMENT_AT);
    return segment < r->segments ? r->ranks[segment] : 0;
}

static void mark_spare(const Ranked *mine, uint8_t *marks, const Ranked *other, uint8_t bit)
{
    size_t i = 0, j = 0;
    while (i < mine->count && j < other->count) {
        const uint8_t *key = mine->at + RECORD * i;
        int order = memcmp(key, other->at + RECORD * j, KEY);
        if (order < 0)
            i++;
        else if (order > 0)
            j++;
        else {
            uint32_t best = 0;
            for (; j < other->count && memcmp(other->at + RECORD * j, key, KEY) == 0; j++)
                if (rank_of(other, j) > best)
                    best = rank_of(other, j);
            for (; i < mine->count && memcmp(mine->at + RECORD * i, key, KEY) == 0; i++)
                if (marks[i] && rank_of(mine, i) < best)
                    marks[i] |= bit;
        }
    }
}

static PyObject *native_mark_spare(PyObject *module, PyObject *args)
{
    Py_buffer table, marks, ranks, other, other_ranks;
    unsigned char bit;
    int right;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*w*y*y*y*b:mark_spare", &table, &marks, &ranks, &other, &other_ranks, &bit))
        return NULL;
    right = table.len % RECORD == 0 && other.len % RECORD == 0 && marks.len == table.len / RECORD &&
            ranks.len % 4 == 0 && other_ranks.len % 4 == 0;
    if (right) {
        Ranked mine = {table.buf, (size_t)(table.len / RECORD), ranks.buf, (size_t)(ranks.len / 4)};
        Ranked others = {other.buf, (size_t)(other.len / RECORD), other_ranks.buf, (size_t)(other_ranks.len / 4)};
        Py_BEGIN_ALLOW_THREADS
        mark_spare(&mine, marks.buf, &others, bit);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&other_ranks);
    PyBuffer_Release(&other);
    PyBuffer_Release(&ranks);
    PyBuffer_Release(&marks);
    PyBuffer_Release(&table);
    if (!right) {
        PyErr_SetString(PyExc_ValueError, "mark_spare: records have 44 bytes each and a mark, segments a rank");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *native_add_marked(PyObject *module, PyObject *args)
{
    Py_buffer table, marks, sums;
    int failed = -1;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*w*:add_marked", &table, &marks, &sums))
        return NULL;
    if (table.len % RECORD == 0 && marks.len == table.len / RECORD && sums.len % 8 == 0) {
        Py_BEGIN_ALLOW_THREADS
        failed = add_marked(&table, marks.buf, sums.buf, (size_t)(sums.len / 8));
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&sums);
    PyBuffer_Release(&marks);
    PyBuffer_Release(&table);
    if (failed) {
        PyErr_SetString(PyExc_ValueError, "add_marked: a mark for each record, and a sum for each segment");
        return NULL;
    }
    Py_RETURN_NONE;
}

/* -------------------------------------------------------------------------------------------------- same_bytes */

static PyObject *native_same_bytes(PyObject *module, PyObject *args)
{
    Py_buffer a, b;
    int same;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*:same_bytes", &a, &b))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    same = a.len == b.len && memcmp(a.buf, b.buf, (size_t)a.len) == 0;
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&b);
    PyBuffer_Release(&a);
    return PyBool_FromLong(same);
}

/* ------------------------------------------------------------------------------------------------------- module */

static PyMethodDef methods[] = {
    {"cuts", native_cuts, METH_VARARGS, "cuts(data, table, minimum, average, maximum, final) -> list of ends"},
    {"sort_records", native_sort_records, METH_VARARGS, "sort_records(table, width): sort the records in place"},
    {"find_record", native_find_record, METH_VARARGS, "find_record(table, width, key) -> index or -1"},
    {"find_records", native_find_records, METH_VARARGS, "find_records(table, width, keys, single=False) -> int64 little-endian"},
    {"mark_records", native_mark_records, METH_VARARGS, "mark_records(table, width, keys, marks, bit) -> a byte for each key"},
    {"mark_spare", native_mark_spare, METH_VARARGS, "mark_spare(records, marks, ranks, other, other_ranks, bit)"},
    {"add_marked", native_add_marked, METH_VARARGS, "add_marked(records, marks, sums): lengths by segment, as uint64"},
    {"blob_records", native_blob_records, METH_VARARGS, "blob_records(segment, ids, lengths, types) -> bytes"},
    {"renumber", native_renumber, METH_VARARGS, "renumber(records, by): add to the segment of each record in place"},
    {"same_bytes", native_same_bytes, METH_VARARGS, "same_bytes(a, b) -> whether two buffers hold the same"},
#ifndef _WIN32
    {"list_names", native_list_names, METH_VARARGS, "list_names(folder) -> list of bytes, in no order"},
    {"stat_entries", native_stat_entries, METH_VARARGS, "stat_entries(folder, prefix, names) -> list of tuples"},
    {"read_files", native_read_files, METH_VARARGS, "read_files(folder, files) -> list of bytes or None"},
    {"write_files", native_write_files, METH_VARARGS, "write_files(files) -> list of error numbers"},
#endif
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "snapvault._native", "The compiled loops of snapvault.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
