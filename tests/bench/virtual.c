/* Calls through tables of functions, as of C++ objects, and qsort with its callback. */
#include <stdio.h>
#include <stdlib.h>

struct shape {
    const struct methods *methods;
    double w, h;
};
struct methods {
    double (*area)(const struct shape *);
    void (*scale)(struct shape *, double);
};

static double box_area(const struct shape *s)
{
    return s->w * s->h;
}
static double ellipse_area(const struct shape *s)
{
    return s->w * s->h * 0.785398;
}
static double triangle_area(const struct shape *s)
{
    return s->w * s->h * 0.5;
}
static void scale_both(struct shape *s, double f)
{
    s->w *= f;
    s->h *= f;
}
static void scale_width(struct shape *s, double f)
{
    s->w *= f;
}

static const struct methods kinds[] = {
    {box_area, scale_both}, {ellipse_area, scale_width}, {triangle_area, scale_both}};

static int by_area(const void *a, const void *b)
{
    const struct shape *x = a, *y = b;
    double d = x->methods->area(x) - y->methods->area(y);

    return (d > 0) - (d < 0);
}

int main(void)
{
    enum { N = 20000 };
    static struct shape shapes[N];
    unsigned x = 1;
    double sum = 0;

    for (int i = 0; i < N; i++) {
        x = x * 1664525 + 1013904223;
        shapes[i] = (struct shape){&kinds[(x >> 20) % 3], 1 + (x >> 8) % 1000, 1 + (x >> 4) % 77};
    }
    for (int round = 0; round < 36; round++) {
        for (int i = 0; i < N; i++)
            shapes[i].methods->scale(&shapes[i], i & 1 ? 1.01 : 0.99);
        qsort(shapes, N, sizeof shapes[0], by_area);
        for (int k = 0; k < 40; k++)
            for (int i = 0; i < N; i++)
                sum += shapes[(i * 7919) % N].methods->area(&shapes[(i * 7919) % N]);
        for (int i = 0; i < N; i += 3) {
            struct shape t = shapes[i];
            shapes[i] = shapes[(i * 31) % N];
            shapes[(i * 31) % N] = t;
        }
    }
    printf("%.0f\n", sum);
    return 0;
}
