/* SSE and SSE2 to SSE4.2, AES and CLMUL: results of packed and scalar operations, compares that
 * set flags, conversions, MXCSR with its rounding modes and sticky flags. */
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static void show(const char *name, __m128i v)
{
    uint64_t q[2];

    memcpy(q, &v, sizeof q);
    printf("%-14s %016llx %016llx\n", name, (unsigned long long)q[1], (unsigned long long)q[0]);
}

static __m128i a, b;
static __m128 x, y;
static __m128d u, v;

__attribute__((target("sse4.2"))) static void integers(void)
{
    show("paddb", _mm_add_epi8(a, b));
    show("psubusw", _mm_subs_epu16(a, b));
    show("pmulhw", _mm_mulhi_epi16(a, b));
    show("pmulld", _mm_mullo_epi32(a, b));
    show("pmaddwd", _mm_madd_epi16(a, b));
    show("psadbw", _mm_sad_epu8(a, b));
    show("pshufb", _mm_shuffle_epi8(a, b));
    show("pshufd", _mm_shuffle_epi32(a, 0x1b));
    show("palignr", _mm_alignr_epi8(a, b, 5));
    show("pblendw", _mm_blend_epi16(a, b, 0x5a));
    show("psllq", _mm_slli_epi64(a, 13));
    show("psrldq", _mm_srli_si128(a, 3));
    show("psrad", _mm_sra_epi32(a, _mm_cvtsi32_si128(7)));
    show("pcmpgtq", _mm_cmpgt_epi64(a, b));
    show("packuswb", _mm_packus_epi16(a, b));
    show("punpckhdq", _mm_unpackhi_epi32(a, b));
    show("pmovsxbw", _mm_cvtepi8_epi16(a));
    show("pminud", _mm_min_epu32(a, b));
    show("phaddw", _mm_hadd_epi16(a, b));
    show("mpsadbw", _mm_mpsadbw_epu8(a, b, 3));
    printf("pmovmskb %x, ptest %d %d, pextrq %llx, crc32 %x\n", _mm_movemask_epi8(a),
           _mm_testz_si128(a, b), _mm_testc_si128(a, b),
           (unsigned long long)_mm_extract_epi64(a, 1), _mm_crc32_u32(7, 0x12345678));
    printf("pcmpistri %d, pcmpestri %d\n", _mm_cmpistri(a, b, 0x0c), _mm_cmpestri(a, 9, b, 5, 0));
}

__attribute__((target("aes,pclmul"))) static void crypto(void)
{
    show("aesenc", _mm_aesenc_si128(a, b));
    show("aesdeclast", _mm_aesdeclast_si128(a, b));
    show("aeskeygen", _mm_aeskeygenassist_si128(a, 0x1b));
    show("pclmulqdq", _mm_clmulepi64_si128(a, b, 0x10));
}

__attribute__((target("sse4.1"))) static void floats(void)
{
    show("addps", _mm_castps_si128(_mm_add_ps(x, y)));
    show("mulpd", _mm_castpd_si128(_mm_mul_pd(u, v)));
    show("divps", _mm_castps_si128(_mm_div_ps(x, y)));
    show("sqrtpd", _mm_castpd_si128(_mm_sqrt_pd(v)));
    show("cmpltps", _mm_castps_si128(_mm_cmplt_ps(x, y)));
    show("minsd", _mm_castpd_si128(_mm_min_sd(u, v)));
    show("roundps", _mm_castps_si128(_mm_round_ps(x, _MM_FROUND_TO_NEG_INF)));
    show("dpps", _mm_castps_si128(_mm_dp_ps(x, y, 0xf1)));
    show("haddpd", _mm_castpd_si128(_mm_hadd_pd(u, v)));
    show("cvttps2dq", _mm_cvttps_epi32(x));
    show("cvtdq2pd", _mm_castpd_si128(_mm_cvtepi32_pd(a)));
    show("blendvps", _mm_castps_si128(_mm_blendv_ps(x, y, _mm_castsi128_ps(a))));
    printf("comisd %d%d%d, cvtsd2si %lld, cvttss2si %d, movmskps %x\n", _mm_comilt_sd(u, v),
           _mm_comieq_sd(u, v), _mm_comigt_sd(u, v), (long long)_mm_cvtsd_si64(u),
           _mm_cvttss_si32(x), _mm_movemask_ps(x));
}

static void control(void)
{
    static const unsigned modes[] = {0x1f80, 0x3f80, 0x5f80, 0x7f80};
    volatile double one = 1, three = 3;

    for (int i = 0; i < 4; i++) {
        _mm_setcsr(modes[i]);
        double third = one / three;
        uint64_t bits;
        memcpy(&bits, &third, sizeof bits);
        printf("mode %d: %016llx, %d, mxcsr %04x\n", i, (unsigned long long)bits,
               _mm_cvtsd_si32(_mm_set_sd(-2.5)), _mm_getcsr());
    }
    _mm_setcsr(0x1f80);
    volatile double zero = 0, inf = one / zero;
    printf("inf %f, mxcsr %04x\n", inf, _mm_getcsr());
}

static void unaligned_and_streaming(void)
{
    _Alignas(16) char buf[64] = "0123456789abcdefghijklmnopqrstuvwxyz";
    _mm_storeu_si128((__m128i *)(buf + 3), a);
    _mm_stream_si128((__m128i *)(buf + 32), b);
    _mm_storel_epi64((__m128i *)(buf + 21), a);
    _mm_maskmoveu_si128(a, b, buf + 48);
    _mm_sfence();
    for (int i = 0; i < 64; i += 16)
        show("memory", _mm_load_si128((__m128i *)(buf + i)));
}

int main(void)
{
    a = _mm_set_epi64x(0x8899aabbccddeeff, 0x0123456789abcdef);
    b = _mm_set_epi64x(0x0f1e2d3c4b5a6978, 0x8070605040302010);
    x = _mm_set_ps(1.5f, -2.25f, 1e10f, 0.1f);
    y = _mm_set_ps(3, 0.5f, -1e-3f, 0.2f);
    u = _mm_set_pd(-1.75, 12345.678);
    v = _mm_set_pd(9, 2e300);
    integers();
    if (__builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul"))
        crypto();
    floats();
    control();
    unaligned_and_streaming();
    return 0;
}
