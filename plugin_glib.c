/* plugin_glib.c: GArray and GByteArray, the two GLib types that cross the plugin API.
 *
 * A plugin that hands over such an array has a GLib, and that GLib must grow it; emu links none.
 * A plugin without one (written in Rust, say, or with libc only) must lay its array out as GLib
 * does, and gets the same from here. */
#include "emu.h"
#define EMU_PLUGIN_HOST
#include "plugin.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define GLIB_LIBRARY "libglib-2.0.so.0"

/* GLib's private layout of both, unchanged since 2.22. */
struct array {
    uint8_t *data;
    uint32_t len, alloc; /* elements */
    uint32_t size;       /* of an element */
    uint32_t zero_terminated : 1, clear : 1;
    int refs;
    void (*clear_func)(void *);
};

/* A function of the GLib that the running plugin uses, or NULL. */
static void *find_glib(const char *name)
{
    void *sym = dlsym(RTLD_DEFAULT, name);
    void *handle = plugin_current_handle();
    if (!sym && handle)
        sym = dlsym(handle, name);
    if (!sym) {
        handle = dlopen(GLIB_LIBRARY, RTLD_NOW | RTLD_NOLOAD);
        if (handle) {
            sym = dlsym(handle, name);
            dlclose(handle);
        }
    }
    return sym;
}

bool glib_load(void)
{
    return dlopen(GLIB_LIBRARY, RTLD_NOW | RTLD_GLOBAL);
}

static void reserve(struct array *a, uint32_t len)
{
    uint32_t alloc = a->alloc > 16 ? a->alloc : 16;
    if (len <= a->alloc)
        return;
    while (alloc < len)
        alloc *= 2;
    a->data = realloc(a->data, (size_t)alloc * a->size);
    if (!a->data)
        die("out of memory");
    a->alloc = alloc;
}

/* Before GLib 2.76 g_array_free() gives the header to GLib's own allocator: only GLib can make
 * one then. */
void *glib_array_new(const void *elements, unsigned size, unsigned n)
{
    void *(*array_new)(int, int, unsigned);
    void *(*append)(void *, const void *, unsigned);
    *(void **)&array_new = find_glib("g_array_new");
    *(void **)&append = find_glib("g_array_append_vals");
    if (array_new && append)
        return append(array_new(1, 1, size), elements, n);

    struct array *a = calloc(1, sizeof *a);
    if (!a)
        die("out of memory");
    *a = (struct array){.size = size, .zero_terminated = 1, .clear = 1, .refs = 1};
    reserve(a, n + 1);
    memcpy(a->data, elements, (size_t)n * size);
    memset(a->data + (size_t)n * size, 0, size);
    a->len = n;
    return a;
}

/* Reading a register or memory must not cost a search of the libraries: one per plugin and thread
 * does. */
struct found {
    void *plugin, *function;
    bool known;
};

static void *find_once(struct found *f, const char *name)
{
    if (!f->known || f->plugin != plugin_current_handle()) {
        f->function = find_glib(name);
        f->plugin = plugin_current_handle();
        f->known = true;
    }
    return f->function;
}

void glib_bytes_append(void *byte_array, const void *data, unsigned len)
{
    static __thread struct found found;
    void *(*append)(void *, const void *, unsigned);
    *(void **)&append = find_once(&found, "g_byte_array_append");
    if (append) {
        append(byte_array, data, len);
        return;
    }
    struct array *a = byte_array;
    a->size = 1;
    reserve(a, a->len + len);
    memcpy(a->data + a->len, data, len);
    a->len += len;
}

void glib_bytes_set_size(void *byte_array, unsigned len)
{
    static __thread struct found found;
    void *(*set_size)(void *, unsigned);
    *(void **)&set_size = find_once(&found, "g_byte_array_set_size");
    if (set_size) {
        set_size(byte_array, len);
        return;
    }
    struct array *a = byte_array;
    a->size = 1;
    reserve(a, len);
    a->len = len;
}
